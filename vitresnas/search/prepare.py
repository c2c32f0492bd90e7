"""What a search lacks, made once and kept in the cache: a super-network, and a latency table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vitresnas.cache import entry_folder, locked
from vitresnas.data.unreadable import UNREADABLE_SHARE, share_of
from vitresnas.doors import say
from vitresnas.latency import LatencyTable, load_tables
from vitresnas.latency.build import build_table
from vitresnas.latency.request import Request, resolve_condition
from vitresnas.space import SearchSpace
from vitresnas.supernet.directory import CARD, read_card
from vitresnas.supernet.directory import SPACE as FINISHED


@dataclass(frozen=True)
class Training:
    """How a super-network would be trained: `shaped_by` decides its weights, `run` trains it into
    a folder on a device, going on where an earlier attempt stopped."""

    recipe: str
    shaped_by: Mapping[str, Any]
    run: Callable[[Path, str], object]


def prepare_supernet(
    training: Training, space: SearchSpace, data_id: str, device: str = "auto"
) -> Path:
    """The folder of a trained super-network, from the cache or trained now."""
    shaped_by = {
        "recipe": dict(training.shaped_by),
        "data": data_id,
        "space": space.id,
        "version": version("vitresnas"),
    }
    folder = entry_folder(f"super-network {training.recipe}", shaped_by)
    out = folder / "supernet"
    if (out / FINISHED).exists():
        return out
    with locked(folder):
        say(f"no super-network given: training {training.recipe} once, kept in {out}")
        training.run(out, device)
    return out


def allowed_unreadable(supernet: str | Path | None) -> float:
    """The share of images that may be unreadable: what a super-network's training allowed."""
    if supernet is None or not (Path(supernet) / CARD).exists():
        return UNREADABLE_SHARE
    return share_of(read_card(supernet))


def prepare_table(space: SearchSpace, request: Request) -> LatencyTable:
    """The latency table of a space on this machine, from the cache or measured now."""
    condition = resolve_condition(space, request)
    # Upgrades of the system or of torch change speeds, so here they do make another table.
    shaped_by = {**condition.to_json(), "version": version("vitresnas")}
    folder = entry_folder(f"latency table of {condition}", shaped_by)
    path = folder / "latency_table.json"
    if not path.exists():
        with locked(folder):
            if not path.exists():
                say(f"no latency table given: measuring this machine once, kept in {path}")
                build_table(space, request, path)
    return load_tables(path)[0]
