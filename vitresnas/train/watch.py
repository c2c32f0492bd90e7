"""The losses of a run as they come: their mean, and the first one that tells of trouble."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

import torch
from torch import Tensor

from vitresnas.train.distributed import World

# A look at the loss makes a GPU wait, so there it is done every so many steps.
STEPS_BETWEEN_LOOKS = {"cpu": 1}
STEPS_BETWEEN_LOOKS_ELSEWHERE = 20

# A spike rises above the median of the epoch's last losses by this many mean deviations, and by
# this many nats: losses of small networks, or of easy images, differ much by chance.
RECENT, LEAST_RECENT = 64, 32
SPIKE_DEVIATIONS, SPIKE_NATS = 10.0, 1.0


class Setback(Exception):
    """Training went wrong by `step` (from 0): a loss or a score that is not finite, or a spike."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(step, what)  # both, so that it can travel between processes
        self.step, self.what = step, what

    def __str__(self) -> str:
        return self.what


class LossWatch:
    """Sums up an epoch; losses are averaged over all processes. Its state goes into checkpoints."""

    def __init__(self, device: torch.device, world: World) -> None:
        self._every = STEPS_BETWEEN_LOOKS.get(device.type, STEPS_BETWEEN_LOOKS_ELSEWHERE)
        self._world = world
        self._pending: list[tuple[Tensor, int, float, int]] = []
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Other networks may be drawn in another epoch: its losses stand for themselves."""
        self._sum, self.count, self.stand_ins = 0.0, 0, 0
        self._recent: deque[float] = deque(maxlen=RECENT)

    @property
    def mean(self) -> float:
        return self._sum / self.count

    def add(self, loss: Tensor, step: int, learning_rate: float, stand_ins: int = 0) -> None:
        """A step is taken. Raises Setback, perhaps for one of the steps before.

        stand_ins: how many images of this process stood in for others that cannot be read.
        """
        self._pending.append((loss, step, learning_rate, stand_ins))
        if len(self._pending) >= self._every:
            self.look()

    def look(self) -> None:
        """Look at all losses so far. Raises Setback for the first one that tells of trouble."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        losses = torch.stack([loss.double() for loss, *_ in pending])
        stand_ins = losses.new_tensor([count for *_, count in pending])
        totals = self._world.total(torch.stack((losses, stand_ins), dim=1)).tolist()
        for (total, count), (_, step, learning_rate, _) in zip(totals, pending, strict=True):
            value = total / self._world.size
            usual = self._unusual(value)
            if usual:
                raise Setback(
                    step,
                    f"the loss of step {step} is {value:.4g}{usual} at learning rate "
                    f"{learning_rate:.3g}",
                )
            self._sum += value
            self.count += 1
            self.stand_ins += int(count)
            self._recent.append(value)

    def state(self) -> dict[str, Any]:
        return {
            "sum": self._sum,
            "count": self.count,
            "stand_ins": self.stand_ins,
            "recent": list(self._recent),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._pending = []
        self._sum, self.count = state["sum"], state["count"]
        self.stand_ins = state["stand_ins"]
        self._recent = deque(state["recent"], maxlen=RECENT)

    def _unusual(self, value: float) -> str:
        if not math.isfinite(value):
            return " (not finite)"
        if len(self._recent) < LEAST_RECENT:
            return ""
        median = statistics.median(self._recent)
        deviation = statistics.fmean(abs(other - median) for other in self._recent)
        if value <= median + max(SPIKE_DEVIATIONS * deviation, SPIKE_NATS):
            return ""
        return f", far above the {median:.4g} of the steps before,"
