"""The anchor: one small fixed workload, read all through a run so that drift is seen (drift.py).

A matrix product, which feels clocks and stolen cores, and a pass over memory, which feels whoever
shares the caches. It is no part of any space and the same in every run on a kind of device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import mean, median

import torch

from vitresnas.latency.busy import waiting_processes
from vitresnas.latency.drift import SCALES, Reading, level_and_noise, tolerance
from vitresnas.latency.partial import PartialLog
from vitresnas.latency.runtime import Call
from vitresnas.latency.stable import settle
from vitresnas.latency.statistics import Clock

# The mean of these counts: together they last about as long as a scheduler lets others run, so that
# whoever takes turns with us is felt in every reading, not in one of ten.
CALLS_PER_READING = 8
_PAUSE = 0.2  # seconds between two looks at a machine that is not quiet


def anchor_call(device: torch.device) -> Call:
    """About half a millisecond on two CPU cores, a little less on a large GPU."""
    side, elements = (2048, 1 << 24) if device.type == "cuda" else (256, 1 << 18)
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(side, side, generator=generator).to(device)
    b = torch.randn(elements, generator=generator).to(device)

    def call() -> object:
        return a @ a, b * 1.5 + 0.5

    return call


class Anchor:
    """Reads the anchor every `interval` seconds, whenever it is given the occasion."""

    def __init__(
        self,
        call: Call,
        measure: Callable[[Call], tuple[float, float]],
        log: PartialLog,
        *,
        interval: float = 0.1,
        clock: Clock = time.perf_counter,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._call, self._measure, self._log = call, measure, log
        self._interval, self._clock, self._pause = interval, clock, pause
        self._last = -float("inf")

    def warm_up(self, seconds: float = 3.0) -> int:
        """Run until the device's speed has settled, for at most `seconds`; returns the calls."""
        return settle(lambda: self._measure(self._call)[1], seconds, clock=self._clock)

    def occasion(self) -> None:
        """Take a reading if one is due."""
        if self._clock() - self._last >= self._interval:
            self.read()

    def read(self) -> Reading:
        begin = self._clock()
        host, device = self._times()
        waiting = waiting_processes()
        self._last = self._clock()
        return self._log.read_anchor(host, device, waiting, self._last - begin)

    def _times(self) -> tuple[float, float]:
        self._measure(self._call)  # the caches still hold what was measured before
        times = [self._measure(self._call) for _ in range(CALLS_PER_READING)]
        return mean(host for host, _ in times), mean(device for _, device in times)

    def now(self) -> float:
        """The device's time at this moment, not logged: one window of the finest running median."""
        return median(self._times()[1] for _ in range(SCALES[0][0]))

    def wait_until_quiet(self, seconds: float) -> bool:
        """Let a disturbance pass, for at most `seconds`; whether the level is reached again.

        Not logged: a long wait would make the disturbance the rule.
        """
        level, noise = level_and_noise([reading.device for reading in self._log.readings])
        end = self._clock() + seconds
        while True:
            if abs(self.now() / level - 1.0) <= tolerance(noise / level):
                return True
            if self._clock() >= end:
                return False
            self._pause(_PAUSE)
