"""Evolutionary search under constraints (ViT-ResNAS, section 3.5).

The paper draws 500 networks inside a narrow band, then 19 times breeds 75 mutants and 75
crossovers from the 75 best seen. Two differences, both ours: every network that keeps the
constraints is admissible, the band only shapes the first draws; and every loop gives up after
`patience` draws that brought nothing new, so that a nearly empty space ends the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from vitresnas.search.candidate import Candidate
from vitresnas.search.draws import Brood, draw_steered
from vitresnas.search.strategy import Evaluate, Problem, Proposal
from vitresnas.space import SearchSpace, macs

_SMALL_NETWORK_MACS = 100_000_000


@dataclass(frozen=True)
class Evolution:
    """The strategy; its defaults are the paper's sizes."""

    name: ClassVar[str] = "evolution"
    initial: int = 500
    iterations: int = 19
    parents: int = 75
    mutants: int = 75
    crossovers: int = 75
    mutation_probability: float = 0.3
    band: float = 1.1  # first draws keep the tightest constraint at most this many times over
    continued_iterations: int = 4  # of a later round, which starts from what is known
    patience: int = 1000

    @classmethod
    def for_space(cls, space: SearchSpace) -> Evolution:
        """The paper's sizes, or a tenth of them where networks are so small that the first
        draws already hold good ones."""
        if macs(space.largest) >= _SMALL_NETWORK_MACS:
            return cls()
        return cls(
            initial=120, iterations=4, parents=30, mutants=24, crossovers=24, continued_iterations=2
        )

    def sized(self, candidates: int) -> Evolution:
        """In the same proportions, scoring so many candidates."""

        def part(count: int) -> int:
            return max(1, round(count * candidates / self.budget))

        mutants, crossovers = part(self.mutants), part(self.crossovers)
        children = mutants + crossovers
        iterations = max(1, min(self.iterations, candidates // children - 1))
        return replace(
            self,
            initial=max(1, candidates - iterations * children),
            iterations=iterations,
            parents=max(2, part(self.parents)),
            mutants=mutants,
            crossovers=crossovers,
        )

    @property
    def budget(self) -> int:
        return self.initial + self.iterations * (self.mutants + self.crossovers)

    def __call__(self, problem: Problem, evaluate: Evaluate, rng: Random) -> None:
        brood = Brood(problem, self.patience)
        population = [found for found in problem.seen if problem.admits(found.architecture)]
        if len(population) < self.parents:
            wanted = self.initial if not problem.seen else self.parents - len(population)
            population += evaluate(self._first_draws(problem, brood, wanted, rng))
        iterations = self.continued_iterations if problem.seen else self.iterations
        for _ in range(iterations):
            parents = sorted(population, key=lambda found: found.rank)[: self.parents]
            children = self._children(problem.space, parents, brood, rng) if parents else []
            if not children:
                return
            population += evaluate(children)

    def _first_draws(
        self, problem: Problem, brood: Brood, wanted: int, rng: Random
    ) -> list[Proposal]:
        drawn = brood.collect(wanted, lambda: Proposal(draw_steered(problem, rng, self.band)))
        # Beside an extreme bound chance may find nothing: then the leanest network stands in.
        return drawn or brood.collect(1, lambda: Proposal(problem.lean))

    def _children(
        self, space: SearchSpace, parents: Sequence[Candidate], brood: Brood, rng: Random
    ) -> list[Proposal]:
        def mutant() -> Proposal:
            parent = rng.choice(parents)
            child = space.mutate(parent.architecture, rng, self.mutation_probability)
            return Proposal(child, (parent.id,))

        def crossover() -> Proposal:
            a, b = rng.sample(parents, 2)
            return Proposal(space.crossover(a.architecture, b.architecture, rng), (a.id, b.id))

        children = brood.collect(self.mutants, mutant)
        if len(parents) > 1:
            children += brood.collect(self.crossovers, crossover)
        return children
