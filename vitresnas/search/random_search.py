"""Random search: uniform draws among the networks that keep the constraints, and nothing learned.

The yardstick from below: at an equal number of candidates a strategy should do better than this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from vitresnas.search.draws import Brood
from vitresnas.search.evolution import Evolution
from vitresnas.search.strategy import Evaluate, Problem
from vitresnas.space import SearchSpace


@dataclass(frozen=True)
class RandomSearch:
    """The strategy; by default it draws as many as the paper's evolution scores."""

    name: ClassVar[str] = "random"
    draws: int = Evolution().budget
    continued_draws: int = 600  # of a later round
    patience: int = 1000

    @classmethod
    def for_space(cls, space: SearchSpace) -> RandomSearch:
        """As many draws as evolution scores in this space."""
        evolution = Evolution.for_space(space)
        children = evolution.mutants + evolution.crossovers
        return cls(evolution.budget, evolution.continued_iterations * children)

    def sized(self, candidates: int) -> RandomSearch:
        """Drawing so many candidates."""
        continued = max(1, round(self.continued_draws * candidates / self.draws))
        return replace(self, draws=candidates, continued_draws=continued)

    @property
    def budget(self) -> int:
        return self.draws

    def __call__(self, problem: Problem, evaluate: Evaluate, rng: Random) -> None:
        wanted = self.continued_draws if problem.seen else self.draws
        evaluate(Brood(problem, self.patience).collect_uniform(wanted, rng))
