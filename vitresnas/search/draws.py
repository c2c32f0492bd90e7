"""What strategies share: collecting networks that keep the constraints, each proposed once."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from vitresnas.search.strategy import Problem, Proposal
from vitresnas.space import Architecture

_STEERING_STEPS = 12
_MISSES = 200  # uniform draws in a row that all cost too much; then draws are steered


class Brood:
    """Collects proposals that keep the constraints and were never proposed before."""

    def __init__(self, problem: Problem, patience: int) -> None:
        self._problem = problem
        self._patience = patience
        self._known = {found.architecture for found in problem.seen}

    def take(self, architecture: Architecture) -> bool:
        """Whether a network is new and keeps the constraints; from now on it is not new."""
        fresh = architecture not in self._known and self._problem.admits(architecture)
        if fresh:
            self._known.add(architecture)
        return fresh

    def collect(
        self, wanted: int, draw: Callable[[], Proposal], patience: int | None = None
    ) -> list[Proposal]:
        """Up to `wanted` new proposals; fewer when `patience` draws in a row bring none."""
        collected: list[Proposal] = []
        misses = 0
        while len(collected) < wanted and misses < (patience or self._patience):
            proposal = draw()
            if self.take(proposal.architecture):
                collected.append(proposal)
                misses = 0
            else:
                misses += 1
        return collected

    def collect_uniform(self, wanted: int, rng: Random) -> list[Proposal]:
        """New networks, uniform among those that keep the constraints.

        Where these are so rare that draws keep missing them, the rest is steered into them; and
        where even that fails, the leanest network stands alone.
        """
        space = self._problem.space
        drawn = self.collect(wanted, lambda: Proposal(space.sample(rng)), _MISSES)
        drawn += self.collect(
            wanted - len(drawn), lambda: Proposal(draw_steered(self._problem, rng))
        )
        return drawn or self.collect(1, lambda: Proposal(self._problem.lean))


def draw_steered(problem: Problem, rng: Random, band: float = float("inf")) -> Architecture:
    """A uniform draw, crossed with one end of the space until it keeps the constraints, the
    tightest of them at most `band` times over."""
    space, drawn = problem.space, problem.space.sample(rng)
    band_exists = problem.slack(space.largest) <= band
    for _ in range(_STEERING_STEPS):
        slack = problem.slack(drawn)
        if slack < 1:
            drawn = space.crossover(drawn, problem.lean, rng)
        elif slack > band and band_exists:
            drawn = space.crossover(drawn, space.largest, rng)
        else:
            break
    return drawn
