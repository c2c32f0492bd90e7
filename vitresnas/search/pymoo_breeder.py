"""pymoo's NSGA-II between ask and tell, over networks instead of vectors.

An individual of pymoo's has one variable, a `Proposal`; crossover and mutation are the space's own
and draw from the search's generator. Only `nsga2` imports this file, and only when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.config import Config
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mating import Mating
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from vitresnas.search.candidate import Candidate
from vitresnas.search.draws import Brood
from vitresnas.search.objectives import values
from vitresnas.search.strategy import Proposal
from vitresnas.space import SearchSpace

if TYPE_CHECKING:
    from vitresnas.search.nsga2 import Nsga2

Config.warnings["not_compiled"] = False  # it would be printed to stdout, where --json belongs


class Breeder:
    """A population that `first` founds; `ask` breeds children of it, `tell` selects among all."""

    def __init__(
        self,
        settings: Nsga2,
        space: SearchSpace,
        brood: Brood,
        rng: Random,
        first: Sequence[Candidate],
    ) -> None:
        self._objectives = settings.objectives
        self._problem = Problem(n_var=1, n_obj=len(settings.objectives), vtype=object)
        founders = Population.new("X", _column([Proposal(found.architecture) for found in first]))
        algorithm = NSGA2(
            pop_size=settings.population,
            sampling=founders,
            eliminate_duplicates=False,  # the founders are known
            output=None,
        )
        algorithm.mating = Mating(
            algorithm.mating.selection,
            _Crossover(space, rng, settings.crossover_probability),
            _Mutation(space, rng, settings.mutation_probability),
            eliminate_duplicates=_Admissible(brood),
        )
        seed = rng.getrandbits(32)  # pymoo's own generator: tournaments and ties
        algorithm.setup(self._problem, termination=NoTermination(), seed=seed)
        self._algorithm = algorithm
        self._asked = algorithm.ask()
        self.tell(first)

    def ask(self) -> list[Proposal]:
        """Children that keep the constraints and are new; none where nothing new is left."""
        self._asked = self._algorithm.ask()
        return [] if self._asked is None else [proposal for (proposal,) in self._asked.get("X")]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """The children as scored, in the order in which they were asked for."""
        points = np.array([values(found, self._objectives) for found in candidates])
        Evaluator().eval(StaticProblem(self._problem, F=points), self._asked)
        self._algorithm.tell(infills=self._asked)


class _Crossover(Crossover):
    """Two parents, one child; some children are a parent's copy, for mutation to change."""

    def __init__(self, space: SearchSpace, rng: Random, probability: float) -> None:
        super().__init__(n_parents=2, n_offsprings=1, prob=1.0)
        self._space, self._rng, self._probability = space, rng, probability

    def _do(self, _: Any, X: Any, *args: Any, **options: Any) -> Any:
        return _column([self._child(a, b) for (a,), (b,) in zip(*X, strict=True)])[None]

    def _child(self, a: Proposal, b: Proposal) -> Proposal:
        one, other = a.architecture, b.architecture
        if self._rng.random() < self._probability:
            return Proposal(self._space.crossover(one, other, self._rng), (one.id, other.id))
        parent = self._rng.choice((one, other))
        return Proposal(parent, (parent.id,))


class _Mutation(Mutation):
    def __init__(self, space: SearchSpace, rng: Random, probability: float) -> None:
        super().__init__(prob=1.0)
        self._space, self._rng, self._probability = space, rng, probability

    def _do(self, _: Any, X: Any, *args: Any, **options: Any) -> Any:
        def mutant(old: Proposal) -> Proposal:
            changed = self._space.mutate(old.architecture, self._rng, self._probability)
            return Proposal(changed, old.parents)

        return _column([mutant(proposal) for (proposal,) in X])


class _Admissible(DuplicateElimination):
    """Drops children that break a constraint or were proposed before."""

    def __init__(self, brood: Brood) -> None:
        super().__init__()
        self._brood = brood

    def do(self, pop: Any, *args: Any, **options: Any) -> Any:
        return pop[[self._brood.take(proposal.architecture) for (proposal,) in pop.get("X")]]


def _column(proposals: Sequence[Proposal]) -> Any:
    """An array (N, 1) of objects, which numpy would otherwise try to take apart."""
    column = np.empty((len(proposals), 1), dtype=object)
    column[:, 0] = proposals
    return column
