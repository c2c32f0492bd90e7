"""What every search strategy is given and gives back: the one signature that they share.

A strategy is called with a problem, a function that scores proposals, and a random generator. It
must draw every random number from that generator and learn about networks only through
`evaluate`: then a search that was killed replays to the same point from the evaluation log alone,
and no strategy needs checkpoints of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from vitresnas.search.candidate import Candidate
from vitresnas.search.constraint import Constraint, Throughput, costs_of, slack
from vitresnas.space import Architecture, SearchSpace


@dataclass(frozen=True)
class Proposal:
    """A network to score, and the ids of those it was bred from."""

    architecture: Architecture
    parents: tuple[str, ...] = ()


class Evaluate(Protocol):
    """Scores proposals, in order; remembers everything that was proposed."""

    def __call__(self, proposals: Sequence[Proposal], /) -> list[Candidate]: ...

    @property
    def candidates(self) -> Sequence[Candidate]:
        """All so far, in the order in which they came, with what is known of them by now."""
        ...

    @property
    def open(self) -> frozenset[str]:
        """The ids of those that have not met all images: proposed again, they meet more."""
        ...


@dataclass(frozen=True)
class Problem:
    """Where to search and under which bounds.

    `lean` is the network to steer to when draws cost too much: the one with the most slack that
    is known. `seen` are candidates scored before, by an earlier round of the same search.
    """

    space: SearchSpace
    constraints: tuple[Constraint, ...]
    throughput: Throughput | None
    lean: Architecture
    seen: tuple[Candidate, ...] = ()

    def slack(self, architecture: Architecture) -> float:
        """At least 1 where every constraint is kept; how far the tightest one is."""
        if not self.constraints:
            return float("inf")
        names = [constraint.name for constraint in self.constraints]
        return slack(self.constraints, costs_of(architecture, self.throughput, names))

    def admits(self, architecture: Architecture) -> bool:
        return self.slack(architecture) >= 1


class Strategy(Protocol):
    """Proposes networks, in batches, until its budget is spent or nothing new is left."""

    @property
    def name(self) -> str: ...

    @property
    def budget(self) -> int:
        """The most candidates that it will ask for in a first round."""
        ...

    def __call__(self, problem: Problem, evaluate: Evaluate, rng: Random) -> None: ...
