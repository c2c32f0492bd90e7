"""How fast a super-network's step is by each path, here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from vitresnas.data.load import Data
from vitresnas.errors import InputError, VitresnasError
from vitresnas.supernet.supernet import PATHS, Supernet
from vitresnas.train.memory import estimate_memory, gigabytes
from vitresnas.train.timed_steps import step_seconds
from vitresnas.train.trainer import Trainer

STEPS, PATIENCE_SECONDS = 4, 2.0  # of every path in a turn, at most
TURNS = 2  # so that one busy moment does not decide; a path that is slow has only one
CLEARLY = 1.1  # times as fast: less is within what two turns of one path differ by


@dataclass(frozen=True)
class PathSpeeds:
    """Images per second by path, on the same draws of sub-networks; why others were not timed."""

    images_per_second: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def line(self, used: str) -> str:
        """For people; gives the option where another path than the one used is clearly faster."""
        speeds = self.images_per_second
        text = ", ".join(f"{path} {speed:.3g}" for path, speed in speeds.items()) + " images/s"
        text += "".join(f"; {path} not timed: {why}" for path, why in self.left_out.items())
        text += f"; this run takes {used}"
        best = max(speeds, key=lambda path: speeds[path])
        times = speeds[best] / speeds[used]
        return text if times <= CLEARLY else f"{text}: --path {best} is {times:.2g} times as fast"


def path_speeds(trainer: Trainer, data: Data, epoch: int, size: int, room: float) -> PathSpeeds:
    """Time steps of `size` images by every path. room: bytes that a process may use."""
    model = trainer.task.model
    assert isinstance(model, Supernet), "one network has no paths"
    used = model.path
    fastest: dict[str, list[float]] = {}
    left_out: dict[str, str] = {}

    def take_turn(path: str) -> list[float]:
        model.path = path
        need = estimate_memory(trainer, epoch).of(size // trainer.share.pieces)
        if need > room and path != used:
            raise InputError(f"it needs about {gigabytes(need)} of memory")
        return step_seconds(trainer, data, epoch, size, steps=STEPS, patience=PATIENCE_SECONDS)

    paths = list(PATHS)
    for _ in range(TURNS):
        for path in paths:
            try:
                found = take_turn(path)
            except VitresnasError as error:
                left_out[path] = str(error)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                left_out[path] = "it does not fit into memory"
            else:
                before = fastest.get(path, found)
                fastest[path] = [min(times) for times in zip(before, found, strict=False)]
        paths = [path for path in fastest if sum(fastest[path]) < PATIENCE_SECONDS]
    model.path = used
    steps = min(map(len, fastest.values()))  # the same draws for all
    speeds = {path: steps * size / sum(found[:steps]) for path, found in fastest.items()}
    return PathSpeeds(speeds, left_out)
