"""Proof: the finalists are timed side by side with the largest network, and judged by intervals.

A network *meets* the target when the lower end of its 95 % interval reaches it; for a target of
`Nx` both sides come from the same run and are compared round by round. If no finalist meets it,
the table is optimistic here: the median of lower end over prediction is its bias, predictions are
asked to be higher by that much, and the search goes on, three rounds at most.

Clocks come in through `timer`, so that all of this is tested with times that are made up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from vitresnas.latency.statistics import Measurement
from vitresnas.search.candidate import Candidate, Finalist, Speed
from vitresnas.search.constraint import Target
from vitresnas.search.result import Round, SearchResult
from vitresnas.space import Architecture

FINALISTS = 8
ROUNDS = 3
_LEAST_CORRECTION = 1.01  # each round asks for at least this much more than the one before

Timer = Callable[[Sequence[Architecture]], Sequence[Measurement]]
SearchOn = Callable[[int, float, Sequence[Candidate]], tuple[Candidate, ...]]


@dataclass(frozen=True)
class Proof:
    """What is to be proved, and how.

    predicted_largest and predicted_fastest: images per second by the table. timer: times several
    networks interleaved. search_on: (round, least predicted images per second, candidates so far)
    -> more candidates. report: told each sentence that a watching user should read.
    """

    target: Target
    batch_size: int
    predicted_largest: float
    predicted_fastest: float
    timer: Timer
    search_on: SearchOn
    report: Callable[[str], None] = lambda _: None

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
        return (speed.relative_interval_95 if self.target.relative else speed.interval_95)[0]

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
    required = proof.target.amount
    for number in range(1, ROUNDS + 1):
        extra: tuple[Candidate, ...] = ()
        if number > 1:
            extra = proof.search_on(number, proof.least_prediction(required), tuple(pool))
            pool += extra
        chosen = _finalists(proof, pool, required, timed)
        if not chosen:
            break
        largest, finalists = _time(proof, result.largest.candidate, chosen)
        result = replace(result, largest=largest)
        timed.update({finalist.candidate.id: finalist for finalist in finalists})
        bias = median(proof.lower_end(f) / proof.predicted(f.candidate) for f in finalists)
        rounds.append(Round(required, bias, finalists, extra))
        met = [f for f in finalists if proof.lower_end(f) >= proof.target.amount]
        proof.report(
            f"round {number}: {len(met)} of {len(finalists)} finalists meet {proof.target}; "
            f"measured at {bias:.1%} of their prediction (lower ends)"
        )
        if met:
            best = min(met, key=lambda finalist: finalist.candidate.rank)
            return replace(result, verdict="met", best=best, rounds=tuple(rounds))
        required = max(proof.target.amount / bias, required * _LEAST_CORRECTION)
    best = max(timed.values(), key=proof.lower_end)
    return replace(result, verdict="missed", best=best, rounds=tuple(rounds))


def _finalists(
    proof: Proof, pool: Sequence[Candidate], required: float, timed: dict[str, Finalist]
) -> list[Candidate]:
    """The best-scoring candidates of sufficient prediction that were not timed before."""
    least = proof.least_prediction(required)
    admissible = [
        candidate
        for candidate in pool
        if candidate.id not in timed and (candidate.predicted_images_per_second or 0.0) >= least
    ]
    return sorted(admissible, key=lambda candidate: candidate.rank)[:FINALISTS]


def _time(
    proof: Proof, largest: Candidate, chosen: Sequence[Candidate]
) -> tuple[Finalist, tuple[Finalist, ...]]:
    networks = [largest, *chosen]
    times = proof.timer([candidate.architecture for candidate in networks])
    speeds = [speed_of(time, times[0], proof.batch_size) for time in times]
    first, *rest = (Finalist(*pair) for pair in zip(networks, speeds, strict=True))
    return first, tuple(rest)


def speed_of(time: Measurement, largest: Measurement, batch_size: int) -> Speed:
    """Measured times as throughput, absolute and relative to the largest network's."""
    relative, relative_interval = time.speedup_over(largest)
    return Speed(
        images_per_second=time.images_per_second(batch_size),
        interval_95=time.images_per_second_interval_95(batch_size),
        relative=relative,
        relative_interval_95=relative_interval,
        samples=len(time.samples_milliseconds),
        priority=time.priority,
    )
