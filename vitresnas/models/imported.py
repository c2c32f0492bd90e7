"""A network from elsewhere becomes a model directory of ours: the end of every import command."""

from __future__ import annotations

from pathlib import Path

from vitresnas.doors import print_json, say
from vitresnas.files import JsonObject
from vitresnas.models.model_directory import save_model
from vitresnas.models.vit_res import ViTRes
from vitresnas.space import macs, parameters


def write_imported(
    model: ViTRes, out: Path, card: JsonObject, *, name: str, as_json: bool = False
) -> None:
    """Save `model` with what its card is to say, and tell what it is. Raises StorageError."""
    save_model(model, out, card)
    architecture = model.architecture
    summary = {
        "architecture_id": architecture.id,
        "image_size": architecture.image_size,
        "macs": macs(architecture),
        "parameters_inference": parameters(architecture),
        "out": str(out),
    }
    if as_json:
        print_json(summary)
    say(
        f"{name}: {architecture.depth} blocks, {summary['parameters_inference']:,} parameters, "
        f"{summary['macs']:,} MACs at {architecture.image_size} pixels\nwrote {out}"
    )
