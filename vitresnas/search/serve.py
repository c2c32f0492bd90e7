"""What the other processes of a torchrun do for a search: score what rank 0 asks for."""

from __future__ import annotations

from pathlib import Path

import torch

from vitresnas.data import load_data
from vitresnas.doors import Rank
from vitresnas.files import JsonObject
from vitresnas.search.prepare import allowed_unreadable
from vitresnas.search.score import SupernetScorer
from vitresnas.search.settings import scores_depend_on
from vitresnas.search.workers import Scorer, serve
from vitresnas.space import load_space
from vitresnas.supernet.directory import load_supernet


def serve_search() -> int:
    """Until rank 0 says stop; nothing is written."""
    return serve(_prepare)


def _prepare(task: JsonObject) -> tuple[Scorer, JsonObject]:
    space = load_space(task["space"])
    allowed = allowed_unreadable(task["supernet"])
    data = load_data(task["data"], image_size=space.image_size, unreadable_share=allowed)
    space = space.with_data(classes=len(data.class_names))
    device = task["device"]
    if device.startswith("cuda"):
        device = f"cuda:{Rank.here().local_rank % torch.cuda.device_count()}"
    torch.set_num_threads(1)
    supernet = load_supernet(Path(task["supernet"]), space=space, device=device)
    scorer = SupernetScorer(supernet, data.holdout)
    return scorer, scores_depend_on(space, data, Path(task["supernet"]))
