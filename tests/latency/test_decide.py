"""Measuring on until a target is decided, with made-up clocks: how long, and how often wrong."""

from __future__ import annotations

import numpy as np
import pytest

from vitresnas.latency import Measurement
from vitresnas.latency.decide import LENGTHS, measure_until
from vitresnas.search.check import judge

ROUNDS = 12


def timed(truth, rng, noise=0.02):
    """A network `truth` times as fast as the largest one, by a clock with noise; looks so far."""
    taken = []

    def measure(number, length):
        taken.append((number, length))
        count = ROUNDS * length
        largest = 10.0 * (1 + noise * rng.standard_normal(count))
        model = 10.0 / truth * (1 + noise * rng.standard_normal(count))
        return {"largest": Measurement(tuple(largest)), "model": Measurement(tuple(model))}

    return measure, taken


def verdict(times, target=2.0):
    return judge(times["model"].speedup_over(times["largest"])[1], target)


def decided(times):
    return verdict(times) != "undecided"


@pytest.mark.parametrize(("truth", "expected"), [(2.3, "met"), (1.7, "missed")])
def test_what_is_clear_takes_one_look(truth, expected):
    measure, taken = timed(truth, np.random.default_rng(0))
    times, looks = measure_until(decided, measure)
    assert verdict(times) == expected and looks == 1 and taken == [(1, 1)]


def test_what_is_near_is_measured_on_until_it_is_clear():
    measure, taken = timed(2.02, np.random.default_rng(3))
    told = []
    times, looks = measure_until(decided, measure, lambda times, number: told.append(number))
    assert verdict(times) == "met" and 1 < looks == len(taken) and told == [*range(2, looks + 1)]
    samples = ROUNDS * sum(LENGTHS[:looks])
    assert {len(time.samples_milliseconds) for time in times.values()} == {samples}


def test_what_lies_on_the_target_is_given_up_at_the_limit():
    measure, taken = timed(2.0, np.random.default_rng(2))
    times, looks = measure_until(decided, measure)
    assert verdict(times) == "undecided" and looks == len(LENGTHS)
    assert taken == [*enumerate(LENGTHS, start=1)]


def test_looking_again_does_not_make_a_lucky_verdict_likely():
    # One interval of 95 % would say "met" of this one in 1 of 40 cases, and so may four looks.
    rng, runs = np.random.default_rng(3), 100
    found = [measure_until(decided, timed(2.0, rng)[0])[0] for _ in range(runs)]
    assert sum(verdict(times) == "met" for times in found) <= runs * 0.05


def test_guests_keep_their_samples_and_the_lesser_priority_is_told():
    def measure(number, length):
        priority = "normal" if number == 2 else "real-time"
        found = {"model": Measurement((1.0,) * length, priority)}
        return found if number > 1 else {**found, "guest": Measurement((2.0,), priority)}

    times, looks = measure_until(lambda times: False, measure)
    assert looks == len(LENGTHS) and len(times["guest"].samples_milliseconds) == 1
    assert len(times["model"].samples_milliseconds) == sum(LENGTHS)
    assert (times["model"].priority, times["guest"].priority) == ("normal", "real-time")
