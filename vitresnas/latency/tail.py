"""The slow end at batch 1: what one call in a hundred exceeds, for who serves single images.

Prices are low quantiles, which add up; tails do not. So a few whole networks are called often
enough to know their 99th percentile, and a prediction's tail is the prediction times their middle
ratio. No torch in here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import Random
from statistics import median

from vitresnas.files import JsonObject
from vitresnas.latency.runtime import Call
from vitresnas.latency.statistics import Clock, Measurement

SAMPLES = 200
_LEAST = 100  # a 99th percentile of fewer is a guess


def measure_tail(
    calls: Mapping[str, Call],
    measure: Callable[[Call], tuple[float, float]],
    seconds: float,
    *,
    clock: Clock = time.perf_counter,
) -> JsonObject | None:
    """p99 of each call, interleaved; None where the time does not suffice for enough samples."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    begin, rng = clock(), Random(0)
    for round_ in range(SAMPLES):
        if clock() - begin >= seconds:
            break
        # A machine too slow for enough samples in the time is found out early.
        if round_ == 10 and (clock() - begin) * _LEAST / 10 > seconds:
            return None
        for name in rng.sample(list(calls), len(calls)):
            samples[name].append(measure(calls[name])[0])
    found = {name: Measurement(tuple(values)) for name, values in samples.items()}
    if min(len(values) for values in samples.values()) < _LEAST:
        return None
    return {
        "networks": [
            {"id": name, "median": one.median, "p99": round(one.p99, 6), "samples": samples[name]}
            for name, one in found.items()
        ],
        "p99_over_median": round(median(one.p99 / one.median for one in found.values()), 4),
    }
