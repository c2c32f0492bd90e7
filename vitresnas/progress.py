"""How far long work is: a bar on a terminal, a plain line every few seconds elsewhere; on stderr,
because stdout belongs to the result."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from vitresnas.doors import say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

Step = Callable[[float, str], None]  # called with how much is done, and words, as a Progress is

SECONDS_BETWEEN_LINES = 5.0
_REPLAY_SECONDS = 0.1  # what is done so soon was read from a log


class Progress:
    """`with Progress("scoring", 360, unit="candidates") as progress: progress(40)`.

    total: of the work, in any unit; where the unit has no name, lines tell percents. done: of it,
    before this process began; the time left is told by what is done now.
    """

    def __init__(
        self,
        name: str,
        total: float = 1.0,
        done: float = 0.0,
        *,
        unit: str = "",
        silent: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._silent, self._clock = silent, clock
        self._before = self._done = done
        self._began = self._told = clock()
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self._silent:
            self._bar = _bar()
            task = self._bar.add_task(self._name, total=self._total, words="")
            self._bar.update(task, completed=self._done)
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

    def __call__(self, done: float, words: str = "") -> None:
        """So much is done in all; `words`: of what is being done."""
        self.add(done - self._done)
        if self._unit:
            told = f"{done:,.0f} of at most {self._total:,.0f} {self._unit}"
        else:
            told = f"{done / self._total:.0%}"
        self.tell(f"{told}, {words}" if words else told)

    def add(self, work: float) -> None:
        """So much more is done; only a bar tells."""
        self._done += work
        if self._clock() - self._began < _REPLAY_SECONDS:
            self._before = self._done
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def tell(self, words: str, *, always: bool = False) -> None:
        """How it goes: beside the bar, or in a line now and then, and where it is `always` told."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], words=words)
            return
        now = self._clock()
        if not self._silent and (always or now - self._told >= SECONDS_BETWEEN_LINES):
            self._told = now
            say(f"{self._name}: {words}{self._left(now)}")

    def _left(self, now: float) -> str:
        left = self._total - self._done
        if left <= 1e-6 * self._total or self._done <= self._before:
            return ""
        seconds = left * (now - self._began) / (self._done - self._before)
        return f", about {duration(seconds)} left" if seconds >= 1 else ""


def _bar() -> Bar:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[words]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )


def duration(seconds: float) -> str:
    """0.35 -> "0.35 s", 129 -> "2 min 9 s", 7300 -> "2 h 1 min"."""
    if round(seconds) < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    words = (f"{hours} h", f"{minutes} min") if hours else (f"{minutes} min", f"{rest} s")
    return " ".join(word for word in words if not word.startswith("0"))
