"""Warm-up that ends when times have settled, not after a number of calls. No torch in here.

The first calls of anything are slow: kernels are chosen and compiled, memory is got, clocks rise,
thread pools wake up. How many calls that takes is not known beforehand, so it is observed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from vitresnas.latency.statistics import Clock

WINDOW = 5
TOLERANCE = 0.03


def settle(
    measure: Callable[[], float],
    seconds: float,
    *,
    least: int = 2 * WINDOW,
    clock: Clock = time.perf_counter,
) -> int:
    """Call `measure` until its answers no longer fall or rise; returns how often it was called.

    Settled: the medians of the last two windows differ by less than 3 %. Ends after `seconds` in
    any case, but never before `least` calls or two calls, whichever is more.
    """
    begin = clock()
    answers: list[float] = []
    while True:
        answers.append(measure())
        if len(answers) < max(least, 2):
            continue
        if clock() - begin >= seconds:
            return len(answers)
        if len(answers) >= 2 * WINDOW:
            before, now = median(answers[-2 * WINDOW : -WINDOW]), median(answers[-WINDOW:])
            if abs(now - before) < TOLERANCE * before:
                return len(answers)
