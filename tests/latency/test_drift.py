"""Planted drift, outliers and slow beginnings, on machines whose clock only work moves."""

import json
import re
from random import Random

import numpy as np
import pytest

from vitresnas.errors import FileFormatError
from vitresnas.latency.anchor import Anchor
from vitresnas.latency.assemble import drift_of
from vitresnas.latency.drift import Drift, Reading, drifted, level_and_noise
from vitresnas.latency.partial import PartialLog
from vitresnas.latency.progress import Silent
from vitresnas.latency.rounds import Plan, kept, repeat, run_rounds, spoilt_visits
from vitresnas.latency.stable import settle
from vitresnas.latency.statistics import p10_width
from vitresnas.latency.tail import measure_tail


def _readings(times):
    return [Reading(float(index), time, time) for index, time in enumerate(times)]


def _noisy(count, sigma=0.01, seed=0):
    return 0.5 * np.random.default_rng(seed).normal(1.0, sigma, size=count)


def test_a_quiet_machine_does_not_drift_nor_do_single_outliers():
    for seed in range(50):
        times = _noisy(100, seed=seed)
        times[[3, 40, 41, 97]] *= 9.0
        assert drifted(_readings(times)) == ()


@pytest.mark.parametrize("half", [slice(0, 50), slice(50, 100), slice(25, 75)])
@pytest.mark.parametrize("factor", [1.15, 2.0, 0.8])
def test_a_disturbance_of_half_the_run_is_found_with_its_ends_and_its_size(half, factor):
    times = _noisy(100)
    times[half] *= factor
    # Of two halves as tight, the faster is the level: a slower machine is told by its roughness.
    times[half] *= np.random.default_rng(1).normal(1.0, 0.03, size=50)
    (stretch,) = drifted(_readings(times))
    assert stretch.percent == pytest.approx(100 * (factor - 1), abs=2.5)
    assert all(stretch.holds(at) for at in range(half.start + 1, half.stop))
    outside = set(range(1, 99)) - set(range(half.start - 3, half.stop + 4))
    assert not any(stretch.holds(at) for at in outside)


def test_the_level_is_that_of_the_undisturbed_third():
    times = np.concatenate((_noisy(40), 3.0 * _noisy(60, sigma=0.3, seed=1)))
    level, noise = level_and_noise(times)
    assert level == pytest.approx(0.5, rel=0.02) and noise < 0.02


def test_either_channel_may_drift_and_a_few_readings_tell_nothing():
    times = _noisy(60)
    slow = np.where(np.arange(60) >= 30, 1.5, 1.0)
    host = [Reading(float(i), t * f, t) for i, (t, f) in enumerate(zip(times, slow, strict=True))]
    device = [Reading(r.at, r.device, r.host) for r in host]
    assert len(drifted(host)) == len(drifted(device)) == 1
    assert drifted(host[:7]) == ()


class Machine:
    """Items of known length on a machine that runs `factor(now)` times slower."""

    def __init__(self, factor):
        self.now, self.factor, self.rng = 0.0, factor, Random(0)

    def clock(self):
        return self.now

    def call(self, seconds):
        def run():
            self.now += seconds * self.factor(self.now) * self.rng.uniform(1.0, 1.02)

        return run

    def measure(self, call):
        begin = self.now
        call()
        return (1000.0 * (self.now - begin),) * 2

    def pause(self, seconds):
        self.now += seconds


ITEMS = {f"item {index}": 0.002 * (index + 1) for index in range(12)}


def _measured(machine, path, seconds=3.0):
    log, _ = PartialLog.open(path, {"subject": "drift"})
    anchor = Anchor(
        machine.call(0.0005), machine.measure, log, clock=machine.clock, pause=machine.pause
    )
    calls = {name: machine.call(time) for name, time in ITEMS.items()}
    options = {"between": anchor.occasion, "clock": machine.clock}
    with Silent().phase("test") as step:
        common = ("operation", calls, machine.measure, log)
        run_rounds(*common, Plan(6, 24, seconds), step, **options)
        spoilt = spoilt_visits("operation", log)
        if spoilt and anchor.wait_until_quiet(1.0):
            repeat(*common, seconds, step, **options)
    return log, spoilt


def _prices(log):
    visits = kept("operation", log)
    return {item: np.quantile([visit.host for visit in visits[item]], 0.1) for item in ITEMS}


def test_what_was_measured_while_another_process_hammered_is_measured_again(tmp_path):
    def hammered(now):
        return 1.6 if 0.7 < now < 2.4 else 1.0

    log, spoilt = _measured(Machine(hammered), tmp_path / "log")
    drift = drift_of(log)
    assert spoilt > 60 and drift.repeated == spoilt and drift.left == 0
    assert drift.stretches[0].percent == pytest.approx(60, abs=5)
    for item, price in _prices(log).items():
        assert price == pytest.approx(1000 * ITEMS[item], rel=0.021)
        assert max(visit.host for visit in kept("operation", log)[item]) < 1100 * ITEMS[item]
    assert re.search(r"by up to \+(59|6[01]) %.*measurements were taken again", str(drift))


def test_a_disturbance_that_never_ends_is_reported_and_the_times_count_as_they_are(tmp_path):
    log, spoilt = _measured(Machine(lambda now: 1.6 if now > 1.5 else 1.0), tmp_path / "log")
    drift = drift_of(log)
    assert drift.stretches and drift.repeated == 0 and drift.left == spoilt > 0
    assert "count as they are" in str(drift)
    assert all(len(visits) >= 3 for visits in kept("operation", log).values())


def test_a_steady_machine_repeats_nothing_however_slow(tmp_path):
    log, spoilt = _measured(Machine(lambda now: 3.0), tmp_path / "log")
    assert spoilt == 0 and "none" in str(drift_of(log))


def test_an_interrupted_run_reads_its_drift_again_from_the_log(tmp_path):
    log, _ = _measured(Machine(lambda now: 1.6 if now < 1.0 else 1.0), tmp_path / "log")
    again, message = PartialLog.open(tmp_path / "log", {"subject": "drift"})
    assert message and drift_of(again) == drift_of(log)
    assert kept("operation", again) == kept("operation", log)


def test_drift_survives_json_and_refuses_what_is_none(tmp_path):
    log, _ = _measured(Machine(lambda now: 1.6 if now < 1.0 else 1.0), tmp_path / "log")
    drift = drift_of(log)
    document = json.loads(json.dumps(drift.to_json(), allow_nan=False))
    assert Drift.from_json(document, "here") == drift
    for name, value in (("readings", [[1.0, 2.0]]), ("stretches", [[0, 1]]), ("measured", -1)):
        with pytest.raises(FileFormatError, match=name):
            Drift.from_json({**document, name: value}, "here")


def test_others_that_wait_for_the_cpu_are_reported():
    readings = tuple(Reading(float(i), 0.5, 0.5, waiting=i % 2) for i in range(40))
    assert "other processes wanted a CPU during 50% of the run" in str(
        Drift(readings, (), measured=10, repeated=0, left=0)
    )


def test_warming_up_ends_when_times_have_settled_not_before_and_not_never():
    def calls_needed(times, **options):
        now = 0.0
        remaining = iter(times)

        def measure():
            nonlocal now
            time = next(remaining)
            now += time
            return time

        return settle(measure, options.pop("seconds", 100.0), clock=lambda: now, **options)

    falling = [1.0 + 4.0 * 0.8**i for i in range(200)]
    assert calls_needed([1.0] * 100) == 10
    assert 20 < calls_needed(falling) < 40
    assert calls_needed([9.0, *[1.0] * 100]) == 10  # a slow first call alone
    assert calls_needed([float(i + 1) ** 2 for i in range(100)], seconds=500.0) < 15


def test_an_item_leaves_the_rounds_when_its_price_is_narrow(tmp_path):
    machine, counts = Machine(lambda now: 1.0), {"steady": 0, "shaky": 0}

    def counted(name, call):
        def run():
            counts[name] += 1
            call()

        return run

    def shaky():
        machine.now += 0.001 * Random(counts["shaky"]).uniform(1.0, 3.0)

    def steady():
        machine.now += 0.001

    calls = {"steady": counted("steady", steady), "shaky": counted("shaky", shaky)}
    log, _ = PartialLog.open(tmp_path / "log", {"subject": "adaptive"})
    with Silent().phase("test") as step:
        plan = Plan(6, 24, 1e9, precision=0.01)
        rounds = run_rounds(
            "operation", calls, machine.measure, log, plan, step, clock=machine.clock
        )
    assert counts == {"steady": 6, "shaky": 24} and rounds == 24


def test_the_width_of_a_price_covers_the_true_percentile():
    rng = np.random.default_rng(0)
    truth = np.exp(0.2 * -1.2815515655)  # of a log-normal
    hits = 0
    for _ in range(400):
        samples = np.sort(np.exp(0.2 * rng.normal(size=60)))
        width = p10_width(list(samples)) * np.quantile(samples, 0.1)
        hits += samples[0] <= truth <= samples[0] + width
    assert hits >= 375


def test_the_tail_of_single_images_is_told_and_needs_enough_samples():
    machine, count = Machine(lambda now: 1.0), 0

    def hiccup():
        nonlocal count
        count += 1
        machine.now += 0.010 if count % 40 == 0 else 0.002

    calls = {"smooth": machine.call(0.002), "hiccup": hiccup}
    tail = measure_tail(calls, machine.measure, 100.0, clock=machine.clock)
    assert tail
    smooth, rough = tail["networks"]
    assert smooth["p99"] == pytest.approx(2.04, abs=0.02) and rough["p99"] == pytest.approx(10.0)
    assert rough["median"] == pytest.approx(2.0) and len(rough["samples"]) == 200
    assert measure_tail(calls, machine.measure, 0.1, clock=machine.clock) is None
