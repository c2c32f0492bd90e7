"""Proof: the finalists are timed side by side with the largest network, and judged by intervals.

A network *meets* the target when the lower end of its 95 % interval reaches it, and *misses* it
when the upper end does not; between the two it is *undecided*, which is no proof either. For a
target of `Nx` both sides come from the same run and are compared round by round. Every other
constraint is measured too, and gets a verdict of its own. If no finalist keeps all, predictions are
optimistic here: the median of measured over predicted is their bias, bounds that were missed are
tightened by that much, and the search goes on, three rounds at most.

Of eight finalists near the target one may pass by luck, and a later measurement then disagrees. A
`margin` lets predictions aim above the target, so that what passes does so again.

Clocks come in through `timer` and `measure`, so that all of this is tested with made-up numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from vitresnas.errors import UnreachableTarget
from vitresnas.latency.statistics import Measurement
from vitresnas.search.candidate import Candidate, Finalist, Speed
from vitresnas.search.check import KEPT, Check, Found, check
from vitresnas.search.compared import ComparedModel
from vitresnas.search.constraint import COSTS, Constraint, Target, slack
from vitresnas.search.result import Round, SearchResult
from vitresnas.space import Architecture

FINALISTS = 8
ROUNDS = 3
_LEAST_CORRECTION = 1.01  # each round asks for at least this much more than the one before

Timer = Callable[[Sequence[Architecture]], Sequence[Measurement]]
Measure = Callable[[Sequence[Architecture]], Sequence[Mapping[str, Found]]]
SearchOn = Callable[[int, Mapping[str, float], Sequence[Candidate]], tuple[Candidate, ...]]


@dataclass(frozen=True)
class Proof:
    """What is to be proved, and how.

    predicted_largest and predicted_fastest: images per second by the table. timer: times several
    networks interleaved. constraints: those beside the target; measure: their costs by name, of
    each network, where this machine can tell. search_on: (round, bounds on predictions by name,
    candidates so far) -> more candidates. report: told each sentence that a watching user should
    read. compare: existing models, which the timer times too and whose times it returns last.
    settle: gives a finalist its score on all images, where it was estimated on a part of them.
    margin: share of the target by which predictions should exceed it; no verdict depends on it.
    """

    target: Target
    batch_size: int
    predicted_largest: float
    predicted_fastest: float
    timer: Timer
    search_on: SearchOn
    report: Callable[[str], None] = lambda _: None
    constraints: tuple[Constraint, ...] = ()
    measure: Measure = lambda networks: [{} for _ in networks]
    compare: tuple[ComparedModel, ...] = ()
    settle: Callable[[Candidate], Candidate] = lambda found: found
    margin: float = 0.0

    @property
    def aim(self) -> float:
        """What predictions, and measurements corrected by them, should reach: target and margin."""
        return self.target.amount * (1 + self.margin)

    def predicted(self, candidate: Candidate) -> float:
        """The prediction in the target's unit: images per second, or times the largest."""
        speed = candidate.predicted_images_per_second
        assert speed is not None, "a proof needs predictions"
        return speed / self._unit

    @property
    def _unit(self) -> float:
        return self.predicted_largest if self.target.relative else 1.0

    def lower_end(self, finalist: Finalist) -> float:
        """The lower end of the measured interval, in the target's unit."""
        speed = finalist.speed
        assert speed is not None, "a finalist has been timed"
        return speed.judged_by(self.target)[0]

    def least_prediction(self, required: float) -> float:
        """A requirement in the target's unit as images per second; never more than there is."""
        return min(required * self._unit, self.predicted_fastest)


def prove(result: SearchResult, proof: Proof) -> SearchResult:
    """The result with its finalists timed, a verdict, and the best network that the times prove.

    Where none meets the target, `best` is the one whose interval comes closest.
    """
    pool = list(result.history)
    timed: dict[str, Finalist] = {}
    rounds: list[Round] = []
    required = proof.aim
    bounds = {constraint.name: constraint.bound for constraint in proof.constraints}
    for number in range(1, ROUNDS + 1):
        extra: tuple[Candidate, ...] = ()
        least = {"throughput": proof.least_prediction(required), **bounds}
        if number > 1:
            # The search's own bounds can be kept, so what is out of reach are the tightened ones.
            with contextlib.suppress(UnreachableTarget):
                extra = proof.search_on(number, least, tuple(pool))
            pool += extra
        chosen = [proof.settle(found) for found in _finalists(pool, least, timed)]
        if not chosen:
            break
        largest, finalists, compared = time_finalists(proof, result.largest.candidate, chosen)
        result = replace(result, largest=largest, compared=compared)
        timed.update({finalist.candidate.id: finalist for finalist in finalists})
        bias = median(proof.lower_end(f) / proof.predicted(f.candidate) for f in finalists)
        rounds.append(Round(required, bias, finalists, extra))
        kept = [f for f in finalists if f.verdict in KEPT]
        proof.report(
            f"round {number}: {len(kept)} of {len(finalists)} finalists meet {_asked(proof)}; "
            f"measured at {bias:.1%} of their prediction (lower ends)"
        )
        if kept:
            best = min(kept, key=lambda finalist: finalist.candidate.rank)
            return replace(result, verdict=best.verdict, best=best, rounds=tuple(rounds))
        if any(proof.lower_end(f) < proof.target.amount for f in finalists):
            required = max(proof.aim / bias, required * _LEAST_CORRECTION)
        bounds = {name: _tightened(name, bounds[name], finalists) for name in bounds}
    best = max(timed.values(), key=_closeness)
    return replace(result, verdict=best.verdict, best=best, rounds=tuple(rounds))


def _asked(proof: Proof) -> str:
    return " and ".join([str(proof.target), *map(str, proof.constraints)])


def _tightened(name: str, bound: float, finalists: Sequence[Finalist]) -> float:
    """The bound on predictions of a cost under which measurements would have kept it."""
    checks = [one for f in finalists for one in f.checks if one.name == name]
    if all(one.verdict in KEPT for one in checks):
        return bound
    bias = median((one.worst or 0.0) / one.predicted for one in checks if one.predicted)
    return min(checks[0].bound / bias, bound / _LEAST_CORRECTION)


def _closeness(finalist: Finalist) -> float:
    """How near the constraint that is missed most comes to its bound."""
    return min(one.closeness for one in finalist.checks)


def _finalists(
    pool: Sequence[Candidate], least: Mapping[str, float], timed: Mapping[str, Finalist]
) -> list[Candidate]:
    """The best-scoring candidates whose predictions keep the bounds and that were not timed."""
    bounds = tuple(Constraint(name, bound) for name, bound in least.items())
    admissible = [
        candidate
        for candidate in pool
        if candidate.id not in timed
        and slack(bounds, {bound.name: candidate.cost(bound.name) for bound in bounds}) >= 1
    ]
    return sorted(admissible, key=lambda candidate: candidate.rank)[:FINALISTS]


def time_finalists(
    proof: Proof, largest: Candidate, chosen: Sequence[Candidate]
) -> tuple[Finalist, tuple[Finalist, ...], tuple[ComparedModel, ...]]:
    """The largest, the chosen ones with a check of every constraint, and the existing models."""
    networks = [largest, *chosen]
    times = proof.timer([candidate.architecture for candidate in networks])
    speeds = [speed_of(time, times[0], proof.batch_size) for time in times]
    first, *rest = (Finalist(*pair) for pair in zip(networks, speeds, strict=False))
    costs = proof.measure([candidate.architecture for candidate in chosen])
    checked = (
        replace(finalist, checks=_checks(proof, finalist, found))
        for finalist, found in zip(rest, costs, strict=True)
    )
    beside = zip(proof.compare, speeds[len(networks) :], strict=True)
    compared = (replace(model, speed=speed) for model, speed in beside)
    return first, tuple(checked), tuple(compared)


def _checks(proof: Proof, finalist: Finalist, found: Mapping[str, Found]) -> tuple[Check, ...]:
    """One of the target, and one of each other constraint."""
    speed, candidate = finalist.speed, finalist.candidate
    assert speed is not None
    relative = proof.target.relative
    target = Check(
        "throughput",
        "times the largest network" if relative else COSTS["throughput"].unit,
        proof.target.amount,
        proof.predicted(candidate),
        speed.relative if relative else speed.images_per_second,
        speed.judged_by(proof.target),
        f"timed, {speed.samples} samples",
    )
    per_batch = 1000.0 * proof.batch_size
    slow, fast = speed.interval_95
    by_name = {
        "latency": Found(
            per_batch / speed.images_per_second,
            (per_batch / fast, per_batch / slow),
            f"timed, {speed.samples} samples",
        ),
        **counted(candidate),
        **found,
    }
    others = (
        check(one, candidate.cost(one.name), by_name.get(one.name, "not measured on this machine"))
        for one in proof.constraints
    )
    return target, *others


def counted(candidate: Candidate) -> dict[str, Found]:
    """The costs that need no measuring, by name."""
    return {
        "macs": Found(float(candidate.macs), None, "counted"),
        "parameters": Found(float(candidate.parameters), None, "counted"),
    }


def speed_of(time: Measurement, largest: Measurement, batch_size: int) -> Speed:
    """Measured times as throughput, absolute and relative to the largest network's.

    Existing models may have left the rounds early: then only the rounds of both are compared.
    """
    rounds = len(time.samples_milliseconds)
    same = replace(largest, samples_milliseconds=largest.samples_milliseconds[:rounds])
    relative, relative_interval = time.speedup_over(same)
    return Speed(
        images_per_second=time.images_per_second(batch_size),
        interval_95=time.images_per_second_interval_95(batch_size),
        relative=relative,
        relative_interval_95=relative_interval,
        samples=len(time.samples_milliseconds),
        priority=time.priority,
    )
