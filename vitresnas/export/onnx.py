"""ONNX: input `images` (batch, channels, side, side), output `logits` (batch, classes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vitresnas.export.program import program_of
from vitresnas.models.to_onnx import INPUT, program_to_onnx
from vitresnas.models.vit_res import ViTRes


def write(model: ViTRes, facts: Mapping[str, str], path: Path) -> None:
    path.write_bytes(program_to_onnx(program_of(model), facts))


def read(path: Path) -> Callable[[Tensor], Tensor]:
    """The file in ONNX Runtime, on the CPU, as a function of images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])
