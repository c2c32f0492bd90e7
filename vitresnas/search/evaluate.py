"""Turns proposals into candidates, each scored once and remembered in the evaluation log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from vitresnas.errors import InputError
from vitresnas.search.candidate import Candidate, Score
from vitresnas.search.constraint import Throughput, costs_of
from vitresnas.search.log import EvaluationLog
from vitresnas.search.strategy import Proposal
from vitresnas.space import Architecture

Scorer = Callable[[Architecture], "Score | float"]
Progress = Callable[[int], None]


class Evaluator:
    """Turns proposals into candidates, each scored once; `candidates` holds all, in order.

    `open` is empty: whoever is scored has met all images.

    With several `workers` the scorer is called from as many threads. Which finishes first changes
    nothing but the order of the log's lines.
    """

    def __init__(
        self,
        scorer: Scorer,
        throughput: Throughput | None,
        log: EvaluationLog,
        progress: Progress = lambda _: None,
        workers: int = 1,
        costs: Sequence[str] = (),
    ) -> None:
        """costs: names of table costs that every candidate is to carry."""
        self._scorer = scorer
        self._throughput = throughput
        self._log = log
        self._progress = progress
        self._workers = workers
        self._costs = tuple(sorted(costs))
        self.candidates: list[Candidate] = []
        self.open: frozenset[str] = frozenset()

    def __call__(self, proposals: Sequence[Proposal]) -> list[Candidate]:
        first = len(self.candidates)
        if self._workers == 1:
            self._keep(map(self.one, proposals))
        else:
            pool = ThreadPoolExecutor(self._workers)
            try:
                self._keep(pool.map(self.one, proposals))
            finally:
                # An interrupted search must not first score all that was waiting.
                pool.shutdown(cancel_futures=True)
        return self.candidates[first:]

    def _keep(self, candidates: Iterable[Candidate]) -> None:
        for candidate in candidates:
            self.candidates.append(candidate)
            self._progress(len(self.candidates))

    def one(self, proposal: Proposal) -> Candidate:
        """Score a single network without counting it as a candidate of the search."""
        architecture = proposal.architecture
        score = self._log.find(architecture)
        if score is None:
            score = _as_score(self._scorer(architecture), architecture)
            score = self._log.add(architecture, score)
        return candidate_of(proposal, score, self._throughput, self._costs)


def candidate_of(
    proposal: Proposal, score: Score, throughput: Throughput | None, names: Sequence[str] = ()
) -> Candidate:
    """A scored proposal; `names`: the table costs that it is to carry."""
    costs = costs_of(proposal.architecture, throughput, names)
    return Candidate(
        architecture=proposal.architecture,
        score=score,
        predicted_images_per_second=costs.get("throughput"),
        macs=int(costs["macs"]),
        parameters=int(costs["parameters"]),
        parents=proposal.parents,
        costs=tuple((name, float(costs[name])) for name in names),
    )


def _as_score(found: Score | float, architecture: Architecture) -> Score:
    score = found if isinstance(found, Score) else Score(float(found))
    if not score.finite:
        raise InputError(
            f"the score of architecture {architecture.id} is {score.negative_log_likelihood}: "
            "its super-network has weights that are not finite; train it again"
        )
    return score
