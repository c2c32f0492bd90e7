"""NSGA-II: a front over several objectives in one search (Deb et al., 2002), through pymoo.

pymoo keeps the population: ranks, crowding, tournaments, survival. Ours are the draws, crossovers
and mutations, all of the search space, and that a child which breaks a constraint or is known is
never scored. Its state is rebuilt by running again on the evaluation log, never from a checkpoint
of pymoo's. Needs the extra `nsga2`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from vitresnas.search import objectives as objectives_
from vitresnas.search.draws import Brood
from vitresnas.search.evolution import Evolution
from vitresnas.search.strategy import Evaluate, Problem
from vitresnas.space import SearchSpace


@dataclass(frozen=True)
class Nsga2:
    """The strategy; its defaults score as many networks as the paper's evolution.

    objectives: two or more of `objectives.OBJECTIVES`.
    """

    name: ClassVar[str] = "nsga2"
    objectives: tuple[str, ...] = objectives_.DEFAULT
    population: int = 134
    generations: int = 24  # after the first population
    crossover_probability: float = 0.9
    mutation_probability: float = 0.1  # of each choice
    continued_generations: int = 4  # of a later round
    patience: int = 1000

    def __post_init__(self) -> None:
        objectives_.check_objectives(self.objectives)

    @classmethod
    def for_space(cls, space: SearchSpace) -> Nsga2:
        """As many candidates as evolution scores in this space."""
        if Evolution.for_space(space) == Evolution():
            return cls()
        return cls(population=24, generations=12)

    def sized(self, candidates: int) -> Nsga2:
        """With a smaller or larger population, scoring about so many candidates."""
        return replace(self, population=max(4, round(candidates / (1 + self.generations))))

    @property
    def budget(self) -> int:
        return self.population * (1 + self.generations)

    def __call__(self, problem: Problem, evaluate: Evaluate, rng: Random) -> None:
        from vitresnas.search.pymoo_breeder import Breeder

        brood = Brood(problem, self.patience)
        first = [found for found in problem.seen if problem.admits(found.architecture)]
        if len(first) < self.population:
            first += evaluate(brood.collect_uniform(self.population - len(first), rng))
        breeder = Breeder(self, problem.space, brood, rng, first)
        for _ in range(self.continued_generations if problem.seen else self.generations):
            children = breeder.ask()
            if not children:
                return
            breeder.tell(evaluate(children))
