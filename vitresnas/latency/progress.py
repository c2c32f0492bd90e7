"""Progress of a measurement: a bar with the time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from vitresnas.doors import say

_SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    """Everything is told on stderr: stdout belongs to the result."""

    def say(self, message: str) -> None:
        """A line of its own."""

    def phase(self, name: str) -> contextlib.AbstractContextManager[Step]:
        """A stretch of work; the step it hands out is called with (fraction done, detail)."""


class Step(Protocol):
    def __call__(self, fraction: float, detail: str) -> None: ...


class Silent:
    """For callers that show progress of their own, and for tests."""

    def say(self, message: str) -> None:
        pass

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[Step]:
        yield lambda fraction, detail: None


class Lines:
    """A line every few seconds, for logs and pipes."""

    def say(self, message: str) -> None:
        say(message)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[Step]:
        begin = last = time.monotonic()

        def step(fraction: float, detail: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _SECONDS_BETWEEN_LINES and 0.0 < fraction < 1.0:
                last = now
                left = (now - begin) * (1.0 - fraction) / fraction
                say(f"{name}: {fraction:.0%}, {detail}, about {left:.0f} s left")

        yield step
        say(f"{name}: done in {time.monotonic() - begin:.1f} s")


class Bar:
    """A rich bar on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[Step]:
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[detail]}"),
        )
        with progress.Progress(*columns, console=self._console) as bar:
            task = bar.add_task(name, total=1.0, detail="")
            yield lambda fraction, detail: bar.update(task, completed=fraction, detail=detail)
            bar.update(task, completed=1.0)


def default_progress() -> Progress:
    return Bar() if sys.stderr.isatty() else Lines()
