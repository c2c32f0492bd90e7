"""Measuring until a bound is decided: longer and longer, up to a limit. No torch in here.

A network that is as fast as asked, give or take a percent, leaves the bound inside its interval.
More samples narrow it. But whoever stops as soon as an interval lies right will find that it does
too often, so the intervals allow for all looks that may be taken (`Measurement.looks`): together
they are wrong as seldom as one interval of 95 %.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import TypeVar

from vitresnas.latency.statistics import Measurement

LENGTHS = (1, 1, 2, 4)  # of the looks, in the first one's time: eight times that at most

Name = TypeVar("Name", bound=Hashable)
Times = Mapping[Name, Measurement]


def measure_until(
    decided: Callable[[Times[Name]], bool],
    measure: Callable[[int, int], Times[Name]],
    announce: Callable[[Times[Name], int], None] = lambda times, number: None,
) -> tuple[dict[Name, Measurement], int]:
    """Look until `decided`, or until the last look; returns the times and how many looks it took.

    measure: (number of the look from 1, its length) -> samples of that look, in rounds that all
    networks share. Networks that later looks leave out keep the samples that they have.
    announce: told the times so far and the number of the look that follows.
    """
    found = _allowing(measure(1, LENGTHS[0]))
    for number, length in enumerate(LENGTHS[1:], start=2):
        if decided(found):
            return found, number - 1
        announce(found, number)
        found = {**found, **_joined(found, _allowing(measure(number, length)))}
    return found, len(LENGTHS)


def _allowing(times: Times[Name]) -> dict[Name, Measurement]:
    return {name: replace(time, looks=len(LENGTHS)) for name, time in times.items()}


def _joined(before: Times[Name], after: Times[Name]) -> dict[Name, Measurement]:
    """Samples one after the other, under the lesser priority of the two."""
    return {
        name: replace(
            time,
            samples_milliseconds=before[name].samples_milliseconds + time.samples_milliseconds,
            # "normal" before "real-time"
            priority=min(before[name].priority, time.priority),
        )
        for name, time in after.items()
    }
