"""torch.export: the graph of a network, of torch's own operators, with a dynamic batch.

B images, K classes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vitresnas.models.to_onnx import BATCH
from vitresnas.models.vit_res import ViTRes

FACTS = "vitresnas.json"
OURS = "vitresnas"


def program_of(model: ViTRes) -> torch.export.ExportedProgram:
    """What `model`, in evaluation mode, computes of any number of images."""
    side, channels = model.architecture.image_size, model.architecture.channels
    images_BCHW = torch.zeros(2, channels, side, side)  # torch takes a batch of 1 for a constant
    with torch.no_grad():
        program = torch.export.export(
            model, (images_BCHW,), dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},)
        )
    for node in program.graph.nodes:
        # An operator of ours would need this package wherever the graph runs.
        assert getattr(node.target, "namespace", "aten") != OURS, f"{node.target} is not torch's"
        node.meta.pop("stack_trace", None)  # paths on this machine
    return program


def write(model: ViTRes, facts: Mapping[str, str], path: Path) -> None:
    file = io.BytesIO()  # torch would refuse a path that does not end in .pt2, yet
    torch.export.save(program_of(model), file, extra_files={FACTS: json.dumps(dict(facts))})
    path.write_bytes(file.getvalue())


def read(path: Path) -> Callable[[Tensor], Tensor]:
    """The file as a function of images (B, channels, side, side): logits (B, K)."""
    return torch.export.load(io.BytesIO(path.read_bytes())).module()
