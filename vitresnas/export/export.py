"""export_model: a model directory to one file of another format, checked before it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitresnas.data.image_set import MEAN, STD
from vitresnas.errors import InputError
from vitresnas.export import onnx, program
from vitresnas.files import JsonObject, atomic_path
from vitresnas.models.model_directory import load_model, read_card
from vitresnas.models.to_onnx import onnx_missing
from vitresnas.models.vit_res import ViTRes

BATCHES = (1, 3, 8)  # that the file is run with; none is the batch it was made with
TOLERANCE = 1e-4  # relative norm of the difference from eager


@dataclass(frozen=True)
class Format:
    """A format: the file's suffix, how it is written and read back, and what is missing for it."""

    suffix: str
    write: Callable[[ViTRes, Mapping[str, str], Path], object]
    read: Callable[[Path], Callable[[Tensor], Tensor]]
    missing: Callable[[], str | None] = lambda: None


FORMATS = {
    "torch-export": Format(".pt2", program.write, program.read),
    "onnx": Format(".onnx", onnx.write, onnx.read, onnx_missing),
}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how far its logits are from eager ones at worst.

    worst_error: relative norm of the difference, over the batches in `batch_sizes`.
    """

    path: str
    format: str
    bytes: int
    worst_error: float
    batch_sizes: tuple[int, ...]

    def to_json(self) -> JsonObject:
        return asdict(self)


def export_model(directory: str | Path, format: str, out: str | Path | None = None) -> Exported:
    """Write the network of a model directory as `format`, one of FORMATS; its batch is dynamic.

    out: `model.pt2` or `model.onnx` in the directory by default. The file is run on random images
    and held against eager before it takes its place. Raises InputError where a package is missing
    or the logits differ, StorageError.
    """
    if format not in FORMATS:
        raise InputError(f"format is {format!r}: use {' or '.join(FORMATS)}")
    kind = FORMATS[format]
    if missing := kind.missing():
        raise InputError(f"exporting to {format} {missing}")
    model = load_model(directory)
    path = Path(out) if out is not None else Path(directory) / f"model{kind.suffix}"
    with atomic_path(path) as partial:
        kind.write(model, facts_of(model, read_card(directory)), partial)
        worst = worst_error(model, kind.read(partial))
        if not worst <= TOLERANCE:
            raise InputError(
                f"the network as {format} differs from eager by {worst:.2g} of the norm of its "
                f"logits, {TOLERANCE} is allowed: nothing was written; use the other format or "
                "another version of its packages"
            )
    return Exported(str(path), format, path.stat().st_size, worst, BATCHES)


def facts_of(model: ViTRes, card: Mapping[str, object]) -> dict[str, str]:
    """What somebody who has nothing but the file must know, as texts of JSON."""
    facts = {
        "architecture": model.architecture.to_json(),
        "architecture_id": model.architecture.id,
        "weights_sha256": card.get("weights_sha256"),
        "mean": MEAN,
        "std": STD,
        "class_names": card.get("class_names"),
    }
    return {name: json.dumps(value) for name, value in facts.items() if value is not None}


@torch.inference_mode()
def worst_error(model: ViTRes, run: Callable[[Tensor], Tensor]) -> float:
    """The largest relative distance between both logits of the same random images."""
    side, channels = model.architecture.image_size, model.architecture.channels
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch in BATCHES:
        images_BCHW = torch.randn(batch, channels, side, side, generator=generator)
        expected_BK = model(images_BCHW)
        assert isinstance(expected_BK, Tensor)  # a pair is for training
        difference = (run(images_BCHW) - expected_BK).norm() / expected_BK.norm()
        if not difference <= worst:  # not a number is worse than any
            worst = float(difference)
    return worst
