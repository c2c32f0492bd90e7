"""When the next checkpoint is due."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# Saving may take this share of the time: a large network's checkpoint takes seconds to write.
SHARE = 0.05


class CheckpointPace:
    """A checkpoint every so many seconds, more rarely where writing takes long; 0: every step."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._cost = 0.0
        self._saved = time.monotonic()

    def due(self) -> bool:
        if self._seconds == 0:
            return True
        return time.monotonic() - self._saved >= max(self._seconds, self._cost / SHARE)

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Around the writing of a checkpoint."""
        started = time.monotonic()
        yield
        self._saved = time.monotonic()
        self._cost = self._saved - started
