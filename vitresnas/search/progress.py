"""How far a search is, for a watching user: a bar on a terminal, a plain line now and then else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from vitresnas.doors import say

if TYPE_CHECKING:
    from rich.progress import Progress

_SECONDS_BETWEEN_LINES = 5.0


class Watch:
    """`with Watch("scoring", total=360) as watch: watch(done)`; always on stderr, with an ETA.

    The ETA counts from the first step after a replay: scores that come from the log take no time.
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str = "candidates",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._unit, self._clock = what, total, unit, clock
        self._bar: Progress | None = None
        self._started = self._told = clock()
        self._first = 0

    def __enter__(self) -> Watch:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task(self._what, total=self._total)
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

    def __call__(self, done: int) -> None:
        """Say that `done` steps are behind us."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)
            return
        now = self._clock()
        if now - self._started < 0.1:
            self._first = done
        if now - self._told < _SECONDS_BETWEEN_LINES:
            return
        self._told = now
        pace = (now - self._started) / max(done - self._first, 1)
        left = max(self._total - done, 0) * pace
        say(f"{self._what}: {done} of at most {self._total} {self._unit}, about {left:.0f} s left")
