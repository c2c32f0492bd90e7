"""What a training run leaves in its folder, written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from vitresnas.files import write_json

IDENTITY = {"name": "my <recipe>", "epochs": 4, "data": "photos (5ee)", "mixing": {"mixup": 0.8}}


def record(epoch: int, **more: float) -> dict[str, float]:
    same = {"learning_rate": 1e-3 / epoch, "seconds": 2.0, "images_per_second": 100.0 + epoch}
    return {"epoch": epoch, "step": 10 * epoch, "loss": 2.0 / epoch, **same, **more}


def training_folder(folder: Path) -> Path:
    """A run that is being trained, in `folder`."""
    write_json(folder / "training_run.json", "training_run", IDENTITY)
    scores = {"holdout_largest_accuracy": 0.5, "holdout_largest_nll": 1.25}
    better = {"holdout_largest_accuracy": 0.75, "holdout_largest_nll": 0.75}
    lines = [record(1), record(2, **scores), record(3), record(4, **better)]
    write_lines(folder / "metrics.jsonl", lines)
    return folder


def write_lines(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
