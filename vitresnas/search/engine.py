"""search(space, score, constraints): the whole algorithm as one function of plain values.

Nothing here knows of torch, files of weights or clocks; `prove` adds measured speeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from vitresnas.errors import InputError
from vitresnas.search.candidate import Candidate, Finalist
from vitresnas.search.constraint import (
    OF_TABLES,
    Constraint,
    Throughput,
    costs_told,
    parse_constraint,
    refuse_twice,
)
from vitresnas.search.evaluate import Evaluator, Progress, Scorer
from vitresnas.search.evolution import Evolution
from vitresnas.search.front import pareto_front
from vitresnas.search.lean import find_lean, unreachable
from vitresnas.search.log import EvaluationLog
from vitresnas.search.objectives import DEFAULT
from vitresnas.search.parts import Parts, PartScorer
from vitresnas.search.racing import Racing, RacingEvaluator
from vitresnas.search.result import SearchResult
from vitresnas.search.strategies import create_strategy
from vitresnas.search.strategy import Problem, Proposal, Strategy
from vitresnas.space import SearchSpace, load_space


def search(
    space: SearchSpace | str,
    score: Scorer,
    constraints: Sequence[Constraint | str] = (),
    strategy: Strategy | str = Evolution.name,
    seed: int = 0,
    *,
    throughput: Throughput | None = None,
    log: EvaluationLog | None = None,
    progress: Progress = lambda _: None,
) -> SearchResult:
    """Find the network of `space` with the lowest negative log-likelihood under `constraints`.

    space: a space, its name, or its file. score: architecture -> Score, or a plain number to
    minimise. constraints: values, or text as in "macs=20M". strategy: a value, or a name of
    `strategies.STRATEGIES`. throughput: what predicts speed (a latency table); needed only for
    bounds on time. log: where scores are remembered; a search that was cut short goes on from it.
    A strategy that races does so where `score` is a PartScorer, and scores in full elsewhere.
    The same arguments give the same history. The verdict is "unproven": nothing was timed.
    Raises UnreachableTarget where no network keeps the constraints.
    """
    space = load_space(space) if isinstance(space, str) else space
    bounds = tuple(parse_constraint(one) if isinstance(one, str) else one for one in constraints)
    chosen = create_strategy(strategy, space) if isinstance(strategy, str) else strategy
    return Session(space, score, bounds, throughput, chosen, seed, log, progress).run()


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
    racing: Racing | None = None  # None leaves it to the strategy
    parts: Parts | None = None  # what a race scores by, if not by `score` in memory

    def __post_init__(self) -> None:
        self.strategy = self.strategy or Evolution.for_space(self.space)
        refuse_twice(self.constraints)
        objectives = tuple(getattr(self.strategy, "objectives", ()))
        self._front = objectives or DEFAULT
        names = {*(constraint.name for constraint in self.constraints), *objectives}
        if "throughput" in names and self.throughput is None:
            raise InputError(
                "throughput as a constraint or objective needs something that predicts it: give a "
                "latency table"
            )
        # All that can be told, so that questions asked later need no second search.
        costs = sorted({*costs_told(self.throughput), *(names & {*OF_TABLES})})
        self.evaluator = self._create_evaluator(costs)

    def _create_evaluator(self, costs: Sequence[str]) -> Evaluator | RacingEvaluator:
        def progress(done: int) -> None:
            self.progress(done)  # a later round may report elsewhere

        racing = self.racing or getattr(self.strategy, "racing", None)
        parts = self.parts
        if parts is None and isinstance(self.score, PartScorer):
            parts = Parts(self.score, workers=self.workers)
        if racing is not None and parts is not None:
            return RacingEvaluator(racing, parts, self.space, self.throughput, progress, costs)
        log = EvaluationLog() if self.log is None else self.log
        return Evaluator(self.score, self.throughput, log, progress, self.workers, costs)

    @property
    def budget(self) -> int:
        """The most candidates of the first round."""
        assert self.strategy is not None
        return min(self.strategy.budget, self.space.size)

    def run(self) -> SearchResult:
        """The first round, whose candidates are the history."""
        history = self.round(1, self.constraints)
        if not history:
            raise unreachable(self.space, self.constraints, self.throughput)
        selected = min(history, key=lambda candidate: candidate.rank)
        return SearchResult(
            verdict="unproven",
            best=Finalist(selected),
            selected=Finalist(selected),
            history=history,
            pareto=tuple(candidate.id for candidate in pareto_front(history, self._front)),
            seed=self.seed,
            largest=Finalist(self.evaluator.one(Proposal(self.space.largest))),
        )

    def round(
        self, number: int, constraints: tuple[Constraint, ...], seen: Sequence[Candidate] = ()
    ) -> tuple[Candidate, ...]:
        """Candidates beyond `seen` that keep `constraints`; may be none where `seen` has all."""
        lean = find_lean(self.space, constraints, self.throughput)
        problem = Problem(self.space, constraints, self.throughput, lean, tuple(seen))
        before = len(self.evaluator.candidates)
        if isinstance(self.evaluator, RacingEvaluator):
            self.evaluator.admits = problem.admits
        assert self.strategy is not None
        self.strategy(problem, self.evaluator, Random(f"{self.seed}/{number}"))
        return tuple(self.evaluator.candidates[before:])

    def settle(self, found: Candidate) -> Candidate:
        """The candidate with its score on all images, which a race may have spared it."""
        if isinstance(self.evaluator, Evaluator):
            return found
        return self.evaluator.one(Proposal(found.architecture, found.parents))
