"""search(space, score, constraints): the whole algorithm as one function of plain values.

Nothing here knows of torch, files of weights or clocks; `prove` adds measured speeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from vitresnas.errors import InputError, UnreachableTarget
from vitresnas.search.candidate import Candidate, Finalist
from vitresnas.search.constraint import Constraint, Throughput, refuse_twice
from vitresnas.search.evaluate import EvaluationLog, Evaluator, Progress, Scorer
from vitresnas.search.evolution import Evolution
from vitresnas.search.front import pareto_front
from vitresnas.search.reach import find_lean
from vitresnas.search.result import SearchResult
from vitresnas.search.strategy import Problem, Proposal, Strategy
from vitresnas.space import SearchSpace


def search(
    space: SearchSpace,
    score: Scorer,
    constraints: Sequence[Constraint] = (),
    *,
    throughput: Throughput | None = None,
    strategy: Strategy | None = None,
    seed: int = 0,
    log: EvaluationLog | None = None,
    progress: Progress = lambda _: None,
) -> SearchResult:
    """Find the network of `space` with the lowest negative log-likelihood under `constraints`.

    score: architecture -> Score, or a plain number to minimise. throughput: what predicts speed
    (a latency table); needed only for a throughput constraint. log: where scores are remembered.
    The same arguments give the same history. The verdict is "unproven": nothing was timed.
    Raises UnreachableTarget where no network keeps the constraints.
    """
    session = Session(space, score, tuple(constraints), throughput, strategy, seed, log, progress)
    return session.run()


@dataclass
class Session:
    """A search that can go on in further rounds under tighter constraints."""

    space: SearchSpace
    score: Scorer
    constraints: tuple[Constraint, ...]
    throughput: Throughput | None = None
    strategy: Strategy | None = None
    seed: int = 0
    log: EvaluationLog | None = None
    progress: Progress = lambda _: None
    workers: int = 1  # threads that score; `score` must bear being called from several

    def __post_init__(self) -> None:
        self.strategy = self.strategy or Evolution.for_space(self.space)
        refuse_twice(self.constraints)
        names = {constraint.name for constraint in self.constraints}
        if "throughput" in names and self.throughput is None:
            raise InputError(
                "a throughput constraint needs something that predicts it: give a latency table"
            )
        self._evaluator = Evaluator(
            self.score,
            self.throughput,
            EvaluationLog() if self.log is None else self.log,
            lambda done: self.progress(done),  # a later round may report elsewhere
            self.workers,
        )

    @property
    def budget(self) -> int:
        """The most candidates of the first round."""
        assert self.strategy is not None
        return min(self.strategy.budget, self.space.size)

    def run(self) -> SearchResult:
        """The first round, whose candidates are the history."""
        history = self.round(1, self.constraints)
        if not history:
            bounds = " and ".join(str(constraint) for constraint in self.constraints)
            raise UnreachableTarget(
                f"no network of the space {self.space.name} was found that keeps {bounds}: "
                "loosen a bound"
            )
        selected = min(history, key=lambda candidate: candidate.rank)
        return SearchResult(
            verdict="unproven",
            best=Finalist(selected),
            selected=Finalist(selected),
            history=history,
            pareto=tuple(candidate.id for candidate in pareto_front(history)),
            seed=self.seed,
            largest=Finalist(self._evaluator.one(Proposal(self.space.largest))),
        )

    def round(
        self, number: int, constraints: tuple[Constraint, ...], seen: Sequence[Candidate] = ()
    ) -> tuple[Candidate, ...]:
        """Candidates beyond `seen` that keep `constraints`; may be none where `seen` has all."""
        lean = find_lean(self.space, constraints, self.throughput)
        problem = Problem(self.space, constraints, self.throughput, lean, tuple(seen))
        before = len(self._evaluator.candidates)
        assert self.strategy is not None
        self.strategy(problem, self._evaluator, Random(f"{self.seed}/{number}"))
        return tuple(self._evaluator.candidates[before:])
