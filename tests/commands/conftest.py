"""What a search command needs, small: a space, an untrained super-network, a planted table."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from vitresnas.latency import Condition, LatencyTable, Timing, save_tables
from vitresnas.latency.calibration import Calibration
from vitresnas.latency.request import Request, resolve_condition
from vitresnas.latency.validation import Pair, Validation
from vitresnas.space import Embedding, Operation, SearchSpace, StageChoices
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import save_supernet


def honest(operation: Operation) -> float:
    return 0.05 + operation.macs / 2e6


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks this small gain nothing from threads, and on a busy machine wait for them."""
    before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
    yield
    torch.set_num_threads(before[0])
    os.environ.pop("OMP_NUM_THREADS")
    if before[1] is not None:
        os.environ["OMP_NUM_THREADS"] = before[1]


@dataclass(frozen=True)
class Kit:
    """Files in a folder, as a user would have them."""

    folder: Path
    space: SearchSpace

    @property
    def arguments(self) -> list[str]:
        """The command line of a quick search but for target and output."""
        return [
            *("--space", str(self.folder / "space.json")),
            *("--supernet", str(self.folder / "supernet")),
            *("--latency-table", str(self.folder / "table.json")),
            *("--proof-seconds", "0.2"),
        ]

    def write_table(self, name: str = "table.json", price=honest, batch_1=False, **changes) -> str:
        """A latency table of this machine whose pieces cost what `price` says."""
        condition = resolve_condition(self.space, Request(batch_size=8))
        condition = replace(condition, **changes)
        conditions = [condition, replace(condition, batch_size=1)] if batch_1 else [condition]
        tables = tuple(planted_table(self.space, one, price) for one in conditions)
        save_tables(self.folder / name, tables)
        return str(self.folder / name)


def planted_table(space: SearchSpace, condition: Condition, price) -> LatencyTable:
    entries = tuple((piece, Timing((price(piece),))) for piece in space.operations())
    calibration = Calibration("scale", "p10", (("device", 1.0),))
    pairs = tuple(Pair(end, 1.0, 1.0, (1.0,)) for end in (space.smallest, space.largest))
    checks = Validation(pairs)
    return LatencyTable(condition, entries, calibration, checks, checks, {}, {})


@pytest.fixture(scope="session")
def search_kit(tmp_path_factory, one_thread) -> Kit:
    stages = (
        StageChoices((16, 12, 8), 4, 3, (4, 3, 2), (32, 24, 16), (2,)),
        StageChoices((32, 24, 16), 8, 3, (4, 3, 2), (64, 48, 32), (2,)),
    )
    space = SearchSpace("kit", 16, 4, Embedding("convolutional", 4), stages, classes=10)
    kit = Kit(tmp_path_factory.mktemp("kit"), space)
    space.save(kit.folder / "space.json")
    torch.manual_seed(0)
    save_supernet(Supernet(space), kit.folder / "supernet", {"recipe": "none"})
    kit.write_table()
    return kit
