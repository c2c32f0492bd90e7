"""Progress with an ETA: a bar in a terminal, plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vitresnas.doors import say

SECONDS_BETWEEN_LINES = 5.0


class TrainingProgress:
    """Counts in work, not in steps: `work[e]` is what one step of epoch e costs.

    Early epochs of a super-network run the largest networks; an ETA by steps would be too long.
    """

    def __init__(
        self,
        name: str,
        work: Sequence[float],
        steps_per_epoch: int,
        steps_done: int,
        *,
        silent: bool = False,
    ) -> None:
        self._work = work
        self._silent = silent
        self._total = sum(work) * steps_per_epoch
        epochs, steps = divmod(steps_done, steps_per_epoch)
        self._done = sum(work[:epochs]) * steps_per_epoch + sum(work[epochs : epochs + 1]) * steps
        self._before = self._done
        self._name = name
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty() and not silent:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(name, total=self._total)
            self._bar.update(self._task, completed=self._done)

    def __enter__(self) -> TrainingProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, epoch: int) -> None:
        """One step of `epoch` (from 0) is done."""
        self.add(self._work[epoch])

    def add(self, work: float) -> None:
        """So much of the work is done."""
        self._done += work
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def epoch(self, text: str, *, last: bool) -> None:
        """An epoch is done; `text` tells how it went."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._name}, {text}")
            return
        now = time.monotonic()
        if not self._silent and (last or now - self._last_line >= SECONDS_BETWEEN_LINES):
            self._last_line = now
            say(f"{self._name}: {text}, {self._remaining(now)}")

    def _remaining(self, now: float) -> str:
        rate = (self._done - self._before) / max(now - self._started, 1e-9)
        seconds = round((self._total - self._done) / rate) if rate else 0
        return f"ETA {clock(seconds)}"


def clock(seconds: float) -> str:
    """75 -> "1:15", 3700 -> "1:01:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
