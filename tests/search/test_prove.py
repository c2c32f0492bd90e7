"""Proof with made-up times: verdicts, bias correction, and that it ends after three rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from vitresnas.latency import Measurement
from vitresnas.search import Constraint, Evolution, Target
from vitresnas.search.check import Found, check, exit_code
from vitresnas.search.engine import Session
from vitresnas.search.prove import FINALISTS, Proof, prove
from vitresnas.search.reach import throughput_reach

STRATEGY = Evolution(initial=30, iterations=3, parents=10, mutants=8, crossovers=8)
BATCH = 32


@dataclass
class FakeTimer:
    """Times that follow the prices, off by a factor, with a little noise, and drift in common."""

    prices: Any
    slowdown: float = 1.0
    noise: float = 0.002
    drift: float = 0.0
    runs: list[Any] = field(default_factory=list)

    def __call__(self, architectures):
        self.runs.append(list(architectures))
        rng = Random(len(self.runs))
        drifts = [1 + self.drift * rng.random() for _ in range(30)]
        found = []
        for architecture in architectures:
            # The largest network comes first and is as fast as predicted.
            off = 1.0 if architecture is architectures[0] else self.slowdown
            time = self.prices.milliseconds(architecture) * off
            samples = [time * shift * (1 + self.noise * rng.gauss(0, 1)) for shift in drifts]
            found.append(Measurement(tuple(samples)))
        return found


@pytest.fixture
def run(digits, full_prices, formula_score):
    """Search and prove a target with a timer."""
    prices = full_prices
    largest = prices.images_per_second(digits.largest)

    def run(
        target, timer, constraints=(), measure=lambda networks: [{} for _ in networks], margin=0.0
    ):
        bound = Constraint("throughput", (1 + margin) * target.images_per_second(largest))
        session = Session(digits, formula_score, (bound, *constraints), prices, STRATEGY)
        result = session.run()
        proof = Proof(
            target=target,
            batch_size=BATCH,
            predicted_largest=largest,
            predicted_fastest=throughput_reach(digits, prices).maximum,
            timer=timer,
            search_on=lambda number, least, seen: session.round(
                number, tuple(Constraint(*item) for item in least.items()), seen
            ),
            constraints=constraints,
            measure=measure,
            margin=margin,
        )
        return result, prove(result, proof)

    return run


def test_an_honest_table_is_proved_in_one_round(run, prices):
    timer = FakeTimer(prices)
    _, proved = run(Target(2, relative=True), timer)
    assert proved.verdict == "met" and len(proved.rounds) == len(timer.runs) == 1
    assert len(timer.runs[0]) == 1 + FINALISTS
    assert proved.best.speed.relative_interval_95[0] >= 2
    assert proved.rounds[0].bias == pytest.approx(1, abs=0.01)


def test_the_finalists_are_the_best_scores_and_the_best_is_the_best_of_those_that_meet(run, prices):
    _, proved = run(Target(2, relative=True), FakeTimer(prices))
    ranks = sorted(candidate.rank for candidate in proved.history)
    assert sorted(f.candidate.rank for f in proved.rounds[0].finalists) == ranks[:FINALISTS]
    met = [f for f in proved.rounds[0].finalists if f.speed.relative_interval_95[0] >= 2]
    assert proved.best == min(met, key=lambda finalist: finalist.candidate.rank)


def test_what_is_timed_changes_nothing_that_the_search_promised(run, prices):
    _, quick = run(Target(2, relative=True), FakeTimer(prices))
    _, slow = run(Target(2, relative=True), FakeTimer(prices, slowdown=1.4))
    assert slow.rounds[1:] and not quick.rounds[1:]
    assert (slow.history, slow.selected, slow.pareto) == (
        quick.history,
        quick.selected,
        quick.pareto,
    )


@pytest.mark.parametrize("target", [Target(2, relative=True), Target(8000, relative=False)])
def test_a_table_that_is_too_optimistic_is_corrected_by_its_measured_bias(run, prices, target):
    timer = FakeTimer(prices, slowdown=1.4)
    _, proved = run(target, timer)
    assert proved.verdict == "met"
    assert 2 <= len(proved.rounds) <= 3
    first, second = proved.rounds[:2]
    assert first.bias == pytest.approx(1 / 1.4, rel=0.01)
    assert second.required == pytest.approx(target.amount / first.bias)
    assert second.candidates, "the search went on"
    timed = [network for networks in timer.runs for network in networks[1:]]
    assert len(timed) == len(set(timed)), "no network is timed in two rounds"


def test_a_hopeless_machine_is_given_up_after_three_rounds(run, prices):
    timer = FakeTimer(prices, slowdown=5.0)
    _, proved = run(Target(2.5, relative=True), timer)
    assert proved.verdict == "missed"
    assert len(timer.runs) <= 3
    every = [f for found in proved.rounds for f in found.finalists]
    assert proved.best.speed.relative_interval_95[0] == max(
        f.speed.relative_interval_95[0] for f in every
    )


def test_a_machine_that_slows_down_for_all_does_not_matter_to_a_relative_target(run, prices):
    _, proved = run(Target(2, relative=True), FakeTimer(prices, drift=1.0))
    assert proved.verdict == "met" and len(proved.rounds) == 1
    # Every second measurement is up to twice as slow, yet the ratio is as sharp as before.
    low, high = proved.best.speed.relative_interval_95
    assert high - low < 0.02
    low, high = proved.best.speed.interval_95
    assert high / low > 1.05


def test_a_median_on_the_target_is_not_enough(run, prices):
    # Wide noise: the interval must clear the target, not its middle.
    _, proved = run(Target(2, relative=True), FakeTimer(prices, noise=0.2))
    for finalist in (f for found in proved.rounds for f in found.finalists):
        if finalist.speed.relative_interval_95[0] < 2:
            assert finalist != proved.best or proved.verdict in ("missed", "undecided")


@pytest.mark.parametrize("slowdown", [1.0, 1.4])
def test_a_margin_moves_what_predictions_aim_at_and_no_verdict(run, prices, slowdown):
    timer = FakeTimer(prices, slowdown=slowdown, noise=0.01)
    _, proved = run(Target(2, relative=True), timer, margin=0.05)
    assert proved.verdict == "met" and proved.best.checks[0].bound == 2
    assert proved.rounds[0].required == pytest.approx(2.1)
    assert proved.best.speed.relative > 2.06  # a second proof passes, too
    last = proved.rounds[-1]
    assert last.required * (1.0 if slowdown == 1.0 else proved.rounds[0].bias) >= 2.1 * 0.999


@pytest.mark.parametrize(
    ("low", "high", "throughput", "latency"),
    [
        (2.0, 2.1, "met", "undecided"),
        (1.9, 2.1, "undecided", "undecided"),
        (1.9, 2.0, "undecided", "met"),
        (1.8, 1.9, "missed", "met"),
        (2.1, 2.2, "met", "missed"),
    ],
)
def test_between_met_and_missed_lies_undecided(low, high, throughput, latency):
    found = Found((low + high) / 2, (low, high), "timed")
    verdicts = [
        check(Constraint(name, 2.0), None, found).verdict for name in ("throughput", "latency")
    ]
    assert verdicts == [throughput, latency]
    assert [exit_code(verdict) for verdict in ("met", "unproven", "undecided", "missed")] == [
        0,
        0,
        4,
        4,
    ]


def test_the_largest_network_is_timed_and_kept_for_comparison(run, prices):
    _, proved = run(Target(2, relative=True), FakeTimer(prices))
    assert proved.largest.speed.relative == 1.0
    assert proved.largest.speed.images_per_second == pytest.approx(
        prices.images_per_second(proved.largest.candidate.architecture), rel=0.01
    )


def test_every_constraint_is_measured_and_gets_a_verdict(run, prices):
    bounds = (
        Constraint("latency", 10.0),
        Constraint("macs", 2e7),
        Constraint("parameters", 3e6),
        Constraint("peak_memory", 2e7),
    )

    def measure(networks):
        return [{"peak_memory": Found(1.5e7, None, "weighed")} for _ in networks]

    _, proved = run(Target(2, relative=True), FakeTimer(prices), bounds, measure)
    assert proved.verdict == "met"
    checks = {check.name: check for check in proved.best.checks}
    assert [*checks] == ["throughput", *(bound.name for bound in bounds)]
    assert all(check.verdict == "met" for check in checks.values())
    assert checks["throughput"].bound == 2 and checks["throughput"].interval_95[0] >= 2
    speed = proved.best.speed
    assert checks["latency"].measured == pytest.approx(1000 * BATCH / speed.images_per_second)
    assert checks["latency"].interval_95[1] <= 10.0
    assert checks["peak_memory"].measured == 1.5e7 and checks["peak_memory"].how == "weighed"


def test_a_bound_that_measurement_misses_is_tightened_by_the_measured_bias(
    run, digits, prices, full_prices
):
    bound = Constraint("peak_memory", 0.6 * full_prices.cost("peak_memory", digits.largest))

    def measure(networks):  # far more than predicted
        return [
            {"peak_memory": Found(1.6 * full_prices.cost("peak_memory", one), None, "weighed")}
            for one in networks
        ]

    _, proved = run(Target(1.2, relative=True), FakeTimer(prices), (bound,), measure)
    assert proved.verdict == "met" and len(proved.rounds) > 1
    first, last = proved.rounds[0], proved.rounds[-1]
    assert {finalist.verdict for finalist in first.finalists} == {"missed"}
    assert last.required == first.required, "the speed was right"
    check = proved.best.checks[1]
    assert check.verdict == "met" and check.measured <= bound.bound < 1.1 * check.measured


def test_a_bound_that_is_always_missed_leaves_the_network_that_comes_closest(run, prices):
    bound = Constraint("peak_memory", 2e7)
    _, proved = run(
        Target(1.2, relative=True),
        FakeTimer(prices),
        (bound,),
        lambda networks: [{"peak_memory": Found(9e7, None, "weighed")} for _ in networks],
    )
    assert proved.verdict == "missed" and proved.best.checks[1].verdict == "missed"


def test_a_bound_that_nothing_here_measures_leaves_the_verdict_unproven(run, prices):
    _, proved = run(Target(1.2, relative=True), FakeTimer(prices), (Constraint("energy", 40.0),))
    assert proved.verdict == "unproven"
    assert [check.verdict for check in proved.best.checks] == ["met", "unproven"]
    assert "not measured" in str(proved.best.checks[1])
