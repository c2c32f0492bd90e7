"""Planted drift, outliers and slow beginnings, on machines whose clock only work moves."""

import json
import re
from random import Random
from typing import Any

import numpy as np
import pytest

from vitresnas.errors import FileFormatError
from vitresnas.latency.anchor import Anchor
from vitresnas.latency.assemble import assemble, drift_of, estimated_cost, operation_timings
from vitresnas.latency.drift import Drift, Reading, drifted, level_and_noise
from vitresnas.latency.networks import choose_networks
from vitresnas.latency.partial import PartialLog
from vitresnas.latency.rounds import Plan, kept, repeat, run_rounds, spoilt_visits
from vitresnas.latency.stable import settle
from vitresnas.latency.statistics import p10_width
from vitresnas.latency.tail import measure_tail
from vitresnas.progress import Progress
from vitresnas.space import operations


def _readings(times):
    return [Reading(float(index), time, time) for index, time in enumerate(times)]


def _noisy(count, sigma=0.01, seed=0):
    return 0.5 * np.random.default_rng(seed).normal(1.0, sigma, size=count)


def test_a_quiet_machine_does_not_drift_nor_do_single_outliers():
    for seed in range(50):
        times = _noisy(100, seed=seed)
        times[[3, 40, 41, 97]] *= 9.0
        assert drifted(_readings(times)) == ()


def test_a_rough_machine_that_stays_as_it_is_does_not_drift():
    found = [drifted(_readings(_noisy(600, sigma=0.2, seed=seed))) for seed in range(50)]
    seconds = sum(one.end - one.begin for stretches in found for one in stretches)
    assert seconds < 0.005 * 50 * 600


@pytest.mark.parametrize("half", [slice(0, 300), slice(300, 600), slice(150, 450)])
@pytest.mark.parametrize("factor", [1.3, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_roughness_does_not_hide_a_disturbance_of_half_the_run(half, factor, seed):
    times = _noisy(600, sigma=0.15, seed=seed)
    times[half] *= factor
    stretches = drifted(_readings(times))
    inside = np.array([any(one.holds(at) for one in stretches) for at in range(600)])
    assert inside[half].mean() > 0.93 and np.delete(inside, range(600)[half]).mean() < 0.07
    longest = max(stretches, key=lambda one: min(one.end, 600) - one.begin)
    assert longest.percent == pytest.approx(100 * (factor - 1), abs=12)


@pytest.mark.parametrize("half", [slice(0, 50), slice(50, 100), slice(25, 75)])
@pytest.mark.parametrize("factor", [1.15, 2.0])
def test_a_disturbance_of_half_the_run_is_found_with_its_ends_and_its_size(half, factor):
    times = _noisy(100)
    times[half] *= factor
    times[half] *= np.random.default_rng(1).normal(1.0, 0.03, size=50)
    (stretch,) = drifted(_readings(times))
    assert stretch.percent == pytest.approx(100 * (factor - 1), abs=2.5)
    assert all(stretch.holds(at) for at in range(half.start + 1, half.stop))
    outside = set(range(1, 99)) - set(range(half.start - 3, half.stop + 4))
    assert not any(stretch.holds(at) for at in outside)


def test_the_level_is_that_of_the_undisturbed_third():
    times = np.concatenate((_noisy(40), 3.0 * _noisy(60, sigma=0.3, seed=1)))
    level, noise = level_and_noise(times)
    assert level == pytest.approx(0.5, rel=0.02) and noise < 0.05


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


class SharedMachine(Machine):
    """Another process takes turns with ours, 4 ms each, while `shared(now)`; calls last as usual
    or many milliseconds longer, as a scheduler has it."""

    def __init__(self, shared):
        super().__init__(lambda now: 1.0)
        self.shared, self.turn = shared, 0.0

    def call(self, seconds):
        def run():
            left = seconds * self.rng.uniform(1.0, 1.02)
            while left > 0.0:
                worked = min(left, max(0.004 - self.turn, 1e-9))
                self.now, self.turn, left = self.now + worked, self.turn + worked, left - worked
                if self.turn >= 0.004:
                    self.turn = self.rng.uniform(0.0, 0.001)
                    self.now += 0.004 if self.shared(self.now) else 0.0

        return run


ITEMS = {f"item {index}": 0.002 * (index + 1) for index in range(12)}


def _measured(machine, path, seconds=3.0, again=3.0):
    log, _ = PartialLog.open(path, {"subject": "drift"})
    anchor = Anchor(
        machine.call(0.0005), machine.measure, log, clock=machine.clock, pause=machine.pause
    )
    calls = {name: machine.call(time) for name, time in ITEMS.items()}
    options = {"between": anchor.occasion, "clock": machine.clock}
    with Progress("test", silent=True) as step:
        common = ("operation", calls, machine.measure, log)
        run_rounds(*common, Plan(6, 24, seconds), step, **options)
        spoilt = spoilt_visits("operation", log)
        if spoilt and anchor.wait_until_quiet(1.0):
            repeat(*common, again, step, **options)
    return log, spoilt


def _prices(log):
    visits = kept("operation", log)
    return {item: np.quantile([visit.host for visit in visits[item]], 0.1) for item in ITEMS}


def test_what_was_measured_while_another_process_hammered_is_measured_again(tmp_path):
    def hammered(now):
        return 1.6 if 0.7 < now < 2.4 else 1.0

    log, spoilt = _measured(Machine(hammered), tmp_path / "log")
    drift = drift_of(log)
    assert spoilt > 20 and drift.repeated == spoilt and drift.left == 0
    assert drift.stretches[0].percent == pytest.approx(60, abs=5)
    for item, price in _prices(log).items():
        assert price == pytest.approx(1000 * ITEMS[item], rel=0.021)
        assert max(visit.host for visit in kept("operation", log)[item]) < 1100 * ITEMS[item]
    assert re.search(r"by up to \+(59|6[01]) %.*measurements were taken again", str(drift))


def test_a_process_that_takes_turns_with_ours_is_found(tmp_path):
    log, spoilt = _measured(SharedMachine(lambda now: 0.7 < now < 3.5), tmp_path / "log", 6.0)
    drift = drift_of(log)
    assert drift.repeated == spoilt and drift.left == 0
    shared = [reading for reading in drift.readings if 0.8 < reading.at < 3.4]
    found = [any(one.holds(reading.at) for one in drift.stretches) for reading in shared]
    assert np.mean(found) > 0.8
    for item, price in _prices(log).items():
        assert price == pytest.approx(1000 * ITEMS[item], rel=0.021)


def _seconds(operation):
    return 0.0015 + operation.macs / 3e6


def test_a_run_that_was_killed_while_it_repeated_goes_on_repeating(tmp_path):
    machine = Machine(lambda now: 1.6 if now < 1.5 else 1.0)
    log, spoilt = _measured(machine, tmp_path / "log", again=0.1)
    assert 0 < drift_of(log).repeated < spoilt
    log, _ = PartialLog.open(tmp_path / "log", {"subject": "drift"})
    assert spoilt_visits("operation", log) == spoilt - drift_of(log).repeated
    calls = {name: machine.call(time) for name, time in ITEMS.items()}
    with Progress("test", silent=True) as step:
        repeat("operation", calls, machine.measure, log, 9.0, step, clock=machine.clock)
    assert drift_of(log).repeated == spoilt and drift_of(log).left == 0


HALVES = {"first": lambda now: now < 8.0, "middle": lambda now: 2.0 < now < 10.0}


@pytest.mark.parametrize(("half", "factor"), [("first", 1.3), ("middle", 2.0)])
def test_a_table_disturbed_for_half_of_its_time_stays_right(
    small_space, condition, tmp_path, half, factor
):
    machine = Machine(lambda now: factor if HALVES[half](now) else 1.0)
    log, _ = PartialLog.open(tmp_path / "log", {"subject": "half"})
    anchor = Anchor(
        machine.call(0.0005), machine.measure, log, clock=machine.clock, pause=machine.pause
    )
    options: dict[str, Any] = {"between": anchor.occasion, "clock": machine.clock}
    pieces = small_space.operations()
    calls = {str(o): machine.call(_seconds(o)) for o in pieces}
    operation = ("operation", calls, machine.measure, log)
    with Progress("test", silent=True) as step:
        run_rounds(*operation, Plan(6, 12, 6.0), step, **options)
        timings = operation_timings(log, pieces, host_is_device=True)
        choice = choose_networks(small_space, estimated_cost(timings), Random(0))
        calls = {
            a.id: machine.call(0.002 + 1.1 * sum(map(_seconds, operations(a)))) for a in choice.all
        }
        network = ("network", calls, machine.measure, log)
        run_rounds(*network, Plan(5, 6, 20.0), step, **options)
        assert sum(spoilt_visits(phase, log) for phase in ("operation", "network")) > 50
        assert anchor.wait_until_quiet(4.0)
        repeat(*operation, 8.0, step, **options)
        repeat(*network, 8.0, step, **options)
    timings = operation_timings(log, pieces, host_is_device=True)
    table = assemble(condition, timings, choice, log, {}, {})
    assert table.validation.mean_absolute_percentage_error < 2.0
    said = rf"off its level for [89] of \d+ s, by up to \+{100 * (factor - 1):.0f} % .*taken again"
    assert re.search(said, str(table.drift))


def test_a_disturbance_that_never_ends_is_reported_and_the_times_count_as_they_are(tmp_path):
    log, spoilt = _measured(Machine(lambda now: 1.6 if now > 1.5 else 1.0), tmp_path / "log")
    drift = drift_of(log)
    assert drift.stretches and drift.repeated == 0 and drift.left == spoilt > 0
    assert "still lack enough steady measurements" in str(drift)
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
    with Progress("test", silent=True) as step:
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
