"""Scores proposals once each, and remembers: the append-only evaluation log is the truth.

Every line of the log is one scored network under its id and a `context`, the digest of everything
else that a score depends on (super-network weights, hold-out, batch size). A search that was
killed runs again from its start, finds its scores here, and so arrives where it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vitresnas.errors import InputError
from vitresnas.files import Fields, append_line, digest, read_lines
from vitresnas.search.candidate import Candidate, Score, optional_number
from vitresnas.search.constraint import Throughput, costs_of
from vitresnas.search.strategy import Proposal
from vitresnas.space import Architecture

Scorer = Callable[[Architecture], "Score | float"]
Progress = Callable[[int], None]


class EvaluationLog:
    """Scores by architecture id; on disk when given a path, in memory otherwise.

    Raises FileFormatError for lines that are not scores.
    """

    def __init__(self, path: Path | None = None, context: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._context = digest(dict(context or {}))[:16]
        self._scores: dict[str, Score] = {}
        self._lock = threading.Lock()
        for number, line in enumerate(read_lines(path) if path else (), start=1):
            context_of_line, identifier, score = _read(line, f"{path}, line {number}")
            if context_of_line == self._context:
                self._scores[identifier] = score

    def __len__(self) -> int:
        return len(self._scores)

    def find(self, architecture: Architecture) -> Score | None:
        return self._scores.get(architecture.id)

    def add(self, architecture: Architecture, score: Score) -> None:
        """Remember a score; it is on the disk when this returns."""
        line = {
            "context": self._context,
            "id": architecture.id,
            "negative_log_likelihood": score.negative_log_likelihood,
            "accuracy": score.accuracy,
            "images": score.images,
        }
        with self._lock:
            if self._path is not None:
                append_line(self._path, line)
            self._scores[architecture.id] = score


def _read(line: object, where: str) -> tuple[str, str, Score]:
    fields = Fields(line, where)
    context, identifier = fields.text("context"), fields.text("id")
    score = Score(
        fields.number("negative_log_likelihood"),
        optional_number(fields, "accuracy"),
        fields.integer("images", minimum=0),
    )
    fields.done()
    return context, identifier, score


class Evaluator:
    """Turns proposals into candidates, each scored once; `candidates` holds all, in order.

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
    ) -> None:
        self._scorer = scorer
        self._throughput = throughput
        self._log = log
        self._progress = progress
        self._workers = workers
        self.candidates: list[Candidate] = []

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
            self._log.add(architecture, score)
        costs = costs_of(architecture, self._throughput)
        return Candidate(
            architecture=architecture,
            score=score,
            predicted_images_per_second=costs.get("throughput"),
            macs=int(costs["macs"]),
            parameters=int(costs["parameters"]),
            parents=proposal.parents,
        )


def _as_score(found: Score | float, architecture: Architecture) -> Score:
    score = found if isinstance(found, Score) else Score(float(found))
    if not score.finite:
        raise InputError(
            f"the score of architecture {architecture.id} is {score.negative_log_likelihood}: "
            "its super-network has weights that are not numbers; train it again"
        )
    return score
