"""Guided search: a surrogate learns from every score, and proposes where the best may be.

Small batches are drawn by Thompson sampling (Thompson, Biometrika 1933; in batches: Kandasamy et
al., AISTATS 2018): each proposal is the best network of one random guess at all scores, so that
proposals lie where the surrogate is either hopeful or unsure. The guesses are made over candidates
that have not met all images yet (racing.py), and over a pool of uniform draws and of mutants and
crossovers of the best, since a space is too large to ask about. A guess that a finished network is
the best asks for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

import numpy as np

from vitresnas.search.candidate import Candidate
from vitresnas.search.draws import Brood
from vitresnas.search.evolution import Evolution
from vitresnas.search.racing import Racing
from vitresnas.search.strategy import Evaluate, Problem, Proposal
from vitresnas.search.surrogate import Surrogate, features
from vitresnas.space import Architecture, SearchSpace

_RACING = Racing(steps=True)
_GUESSES = 6  # at most, for each proposal of a batch


@dataclass(frozen=True)
class Guided:
    """The strategy. Its batches are small, since each one teaches the next."""

    name: ClassVar[str] = "guided"
    racing: Racing = _RACING
    initial: int = 24
    iterations: int = 40
    continued_iterations: int = 10  # of a later round
    batch: int = 8
    pool: int = 300
    parents: int = 10
    mutation_probability: float = 0.15
    patience: int = 1000

    @classmethod
    def for_space(cls, space: SearchSpace) -> Guided:
        """More of everything where networks are large, and spaces with them."""
        if Evolution.for_space(space) == Evolution():
            return cls(initial=64, iterations=100, batch=16, pool=300)
        return cls()

    def sized(self, candidates: int) -> Guided:
        """In the same proportions, proposing about so many candidates."""
        share = candidates / self.budget
        return replace(
            self,
            initial=max(2, round(self.initial * share)),
            iterations=max(1, round(self.iterations * share)),
        )

    @property
    def budget(self) -> int:
        return self.initial + self.iterations * self.batch

    def __call__(self, problem: Problem, evaluate: Evaluate, rng: Random) -> None:
        brood = Brood(problem, self.patience)
        wanted = self.initial - sum(problem.admits(c.architecture) for c in problem.seen)
        evaluate(brood.collect_uniform(wanted, rng) if wanted > 0 else ())
        for _ in range(self.continued_iterations if problem.seen else self.iterations):
            found = [c for c in evaluate.candidates if problem.admits(c.architecture)]
            chosen = self._choose(problem, found, evaluate.open, rng) if len(found) > 1 else []
            if not chosen:
                break
            evaluate(chosen)
        # Nobody shall look better than the best who has finished, but not have finished.
        while rivals := self._rivals(problem, evaluate):
            evaluate(rivals)

    def _rivals(self, problem: Problem, evaluate: Evaluate) -> list[Proposal]:
        found = [c for c in evaluate.candidates if problem.admits(c.architecture)]
        ranks = [c.rank for c in found if c.id not in evaluate.open]
        best = min(ranks, default=(np.inf, ""))
        return [Proposal(c.architecture) for c in found if c.id in evaluate.open and c.rank < best]

    def _choose(
        self, problem: Problem, found: Sequence[Candidate], unfinished: frozenset[str], rng: Random
    ) -> list[Proposal]:
        pool = self._pool(problem, found, rng)
        surrogate = Surrogate(
            features(problem.space, [candidate.architecture for candidate in found]),
            np.array([candidate.score.negative_log_likelihood for candidate in found]),
            np.array([max(candidate.score.images, 1) for candidate in found], dtype=float),
            max(candidate.score.images for candidate in found) or 1,
        )
        best = min(found, key=lambda c: c.rank if c.id not in unfinished else (np.inf, ""))
        known = [i for i, c in enumerate(found) if c.id in unfinished or c is best]
        means, covariance = surrogate.predict(features(problem.space, pool), known)
        networks = [found[i].architecture for i in known] + pool
        spread = 1e-9 * float(np.trace(covariance)) / len(networks) + 1e-15
        factor = np.linalg.cholesky(covariance + spread * np.eye(len(networks)))
        noise = np.random.default_rng(rng.getrandbits(64))
        chosen: dict[int, None] = {}
        for _ in range(_GUESSES * self.batch):
            place = int(np.argmin(means + factor @ noise.standard_normal(len(networks))))
            if networks[place].id != best.id:
                chosen[place] = None
            if len(chosen) == self.batch:
                break
        return [Proposal(networks[place]) for place in chosen]

    def _pool(
        self, problem: Problem, found: Sequence[Candidate], rng: Random
    ) -> list[Architecture]:
        space = problem.space
        known = {candidate.architecture for candidate in found}
        best = sorted(found, key=lambda candidate: candidate.rank)[: self.parents]
        parents = [candidate.architecture for candidate in best]
        draws = (
            lambda: space.sample(rng),
            lambda: space.mutate(rng.choice(parents), rng, self.mutation_probability),
            lambda: space.crossover(rng.choice(parents), rng.choice(parents), rng),
        )
        pool: dict[Architecture, None] = {}
        for number in range(2 * self.pool):
            drawn = draws[number % len(draws)]()
            if drawn not in known and drawn not in pool and problem.admits(drawn):
                pool[drawn] = None
            if len(pool) == self.pool:
                break
        return list(pool)
