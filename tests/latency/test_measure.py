"""Whole networks against each other, with real sleeps, a fake clock and planted trouble."""

import time

import pytest
import torch

from vitresnas.errors import InputError
from vitresnas.latency.measure import time_interleaved
from vitresnas.latency.timer import CpuTimer
from vitresnas.models import create_model

IMAGES = torch.zeros(2, 3, 8, 8)


class FakeMachine:
    """A clock that only work moves, and work of known length."""

    def __init__(self):
        self.now = 0.0

    def clock(self):
        return self.now

    def network(self, seconds, slow_calls=()):
        calls = 0

        def run(images):
            nonlocal calls
            self.now += seconds * (100.0 if calls in slow_calls else 1.0)
            calls += 1

        return run


def test_the_timer_reads_exactly_what_the_call_took():
    machine = FakeMachine()
    timer = CpuTimer(machine.clock)
    run = machine.network(0.25)
    assert timer.piece(lambda: run(None)) == (250.0, 250.0)


def test_every_network_gets_one_sample_per_round_and_its_own_time():
    machine = FakeMachine()
    networks = {"slow": machine.network(0.020), "fast": machine.network(0.005)}
    found = time_interleaved(networks, IMAGES, clock=machine.clock, maximum_rounds=7, precision=0)
    assert [len(one.samples_milliseconds) for one in found.values()] == [7, 7]
    assert found["slow"].median == pytest.approx(20.0)
    assert found["fast"].speedup_over(found["slow"])[0] == pytest.approx(4.0)


def test_slow_first_calls_are_not_counted():
    machine = FakeMachine()
    networks = {"lazy": machine.network(0.001, slow_calls=(0, 1, 2))}
    found = time_interleaved(networks, IMAGES, clock=machine.clock, maximum_rounds=10)
    assert max(found["lazy"].samples_milliseconds) == pytest.approx(1.0)


def test_outliers_move_the_samples_and_not_the_median():
    machine = FakeMachine()
    networks = {"hit": machine.network(0.001, slow_calls=range(20, 90, 5))}
    found = time_interleaved(networks, IMAGES, clock=machine.clock, maximum_rounds=40, precision=0)[
        "hit"
    ]
    assert max(found.samples_milliseconds) == pytest.approx(100.0)
    assert found.median == pytest.approx(1.0)


def test_measuring_stops_at_the_time_allowed_at_the_precision_wanted_or_at_the_minimum():
    def rounds(**options):
        machine = FakeMachine()
        networks = {"a": machine.network(0.5)}
        found = time_interleaved(networks, IMAGES, clock=machine.clock, **options)
        return len(found["a"].samples_milliseconds)

    assert rounds(seconds=20.0, precision=0) == 20  # two calls of half a second a round
    assert rounds(seconds=1e-9, minimum_rounds=6) == 6
    assert rounds(seconds=1e9, precision=0.01, maximum_rounds=99) == 10  # identical samples


def test_networks_beside_take_turns_and_no_time_from_the_others():
    machine = FakeMachine()
    networks = {"a": machine.network(0.5)}
    beside = {name: (machine.network(4.0), IMAGES) for name in ("large", "larger")}
    found = time_interleaved(
        networks,
        IMAGES,
        beside=beside,
        seconds=20.0,
        minimum_rounds=3,
        precision=0,
        clock=machine.clock,
    )
    rounds = [len(one.samples_milliseconds) for one in found.values()]
    assert rounds == [20, 3, 3]  # 48 s in three rounds, of 20 that they had
    assert found["large"].median == pytest.approx(4000.0)


def test_real_networks_are_timed_and_left_as_they_were(small_space):
    network = create_model(small_space.largest).train()
    networks = {"large": network, "small": create_model(small_space.smallest)}
    found = time_interleaved(networks, IMAGES, seconds=0.5, dtype="bf16")
    assert found["large"].median > found["small"].median > 0.0
    assert network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_real_time_is_told_in_milliseconds():
    found = time_interleaved(
        {"sleep": lambda images: time.sleep(0.003)}, IMAGES, seconds=0.1, maximum_rounds=12
    )
    assert 3.0 <= min(found["sleep"].samples_milliseconds) < 6.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"runtime": "cuda-graph"}, "NVIDIA GPU"),
        ({"dtype": "fp64"}, "bf16"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(options, complaint):
    with pytest.raises(InputError, match=complaint):
        time_interleaved({"a": lambda images: None}, IMAGES, **options)
    with pytest.raises(InputError, match="at least one"):
        time_interleaved({}, IMAGES)
