"""What to steer a search to, and bounds that no network keeps: refused before searching.

A bound alone is checked against the exact range of its cost. Bounds together are weighed against
each other: the network of least weighted cost is known exactly, and where even that one exceeds
the weighted bounds, none keeps them all (weak duality). The weights move to the bounds that are
broken most, until a network keeps everything, that proof is found, or it is left to the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from vitresnas.errors import UnreachableTarget
from vitresnas.search.constraint import (
    OF_TABLES,
    Constraint,
    CostReach,
    Piece,
    Throughput,
    costs_of,
    slack,
)
from vitresnas.search.reach import cheapest, cost_reach, share_of_bound, total
from vitresnas.space import Architecture, SearchSpace

_STEPS = 30  # that weights move before it is left to the search
_BLENDS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
_ROUNDING = 1e-9


def find_lean(
    space: SearchSpace, constraints: Sequence[Constraint], throughput: Throughput | None
) -> Architecture:
    """A network with much slack under all constraints together, to steer draws towards.

    Without `throughput` constraints that need it are left out. Raises UnreachableTarget, naming
    what is reachable, for constraints that no network keeps, alone or together.
    """
    if throughput is None:
        constraints = [one for one in constraints if one.name not in ("throughput", *OF_TABLES)]
    bounds = _Bounds(space, tuple(constraints), throughput)
    for constraint in constraints:
        reach = bounds.reaches.get(constraint.name)
        if reach and not reach.allows(constraint):
            raise UnreachableTarget(
                f"no network of the space {space.name} keeps {constraint}: they reach from "
                f"{reach.minimum:,.6g} to {reach.maximum:,.6g} {constraint.cost.unit}; choose a "
                "bound inside that range"
            )
    lean = max(bounds.ends(), key=bounds.slack)
    if len(constraints) > 1:
        lean = max(lean, bounds.balance(lean), key=bounds.slack)
    return lean


def unreachable(
    space: SearchSpace, constraints: Sequence[Constraint], throughput: Throughput | None
) -> UnreachableTarget:
    """The complaint about constraints that no network was found to keep, with the reachable box."""
    bounds = _Bounds(space, tuple(constraints), throughput)
    return bounds.complaint("was found that keeps")


@dataclass(frozen=True)
class _Bounds:
    space: SearchSpace
    constraints: tuple[Constraint, ...]
    throughput: Throughput | None

    @cached_property
    def reaches(self) -> dict[str, CostReach]:
        """The range of each cost, where it can be told."""
        names = [constraint.name for constraint in self.constraints]
        found = {name: cost_reach(self.space, name, self.throughput) for name in names}
        return {name: reach for name, reach in found.items() if reach}

    @cached_property
    def shares(self) -> dict[str, Piece]:
        """What each bound that is on a sum of pieces allows, as 1."""
        found = {
            one.name: share_of_bound(self.space, one, self.throughput) for one in self.constraints
        }
        return {name: share for name, share in found.items() if share}

    def ends(self) -> list[Architecture]:
        """Networks that are best in one of the costs."""
        return [self.space.smallest, *(reach.lean for reach in self.reaches.values())]

    def costs(self, network: Architecture) -> dict[str, float]:
        names = [constraint.name for constraint in self.constraints]
        return costs_of(network, self.throughput, names)

    def slack(self, network: Architecture) -> float:
        return slack(self.constraints, self.costs(network))

    def balance(self, lean: Architecture) -> Architecture:
        """The network of most slack on the way to weights that are fair to all bounds.

        Raises UnreachableTarget where the weights prove that no network keeps all.
        """
        shares = list(self.shares.values())
        weights = [1.0 / len(shares)] * len(shares) if len(shares) > 1 else []
        for _ in range(_STEPS if weights else 0):
            found = self.cheapest(shares, weights)
            spent = [total(found, share) for share in shares]
            if sum(w * s for w, s in zip(weights, spent, strict=True)) > 1.0 + _ROUNDING:
                raise self.complaint("keeps")
            lean = max(lean, found, key=self.slack)
            if self.slack(lean) >= 1.0:
                break
            weights = _moved(weights, spent)
        return lean

    def cheapest(self, shares: Sequence[Piece], weights: Sequence[float]) -> Architecture:
        pairs = tuple(zip(weights, shares, strict=True))
        return cheapest(self.space, lambda op: sum(w * share(op) for w, share in pairs))

    def complaint(self, keeps: str) -> UnreachableTarget:
        """The reachable box: each cost alone, and with the other bounds kept."""
        bounds = " and ".join(str(constraint) for constraint in self.constraints)
        sides = "; ".join(self._side(constraint) for constraint in self.constraints)
        return UnreachableTarget(
            f"no network of the space {self.space.name} {keeps} {bounds}: {sides}; loosen a bound"
        )

    def _side(self, constraint: Constraint) -> str:
        name, reach = constraint.name, self.reaches.get(constraint.name)
        text = name
        if reach:
            text += f" reaches from {reach.minimum:,.6g} to {reach.maximum:,.6g}"
        if len(self.constraints) == 1:
            return text
        best = self._best_beside_the_others(constraint)
        if best is None:
            return f"{text}, no network is known that keeps the other bounds"
        upto = "up to" if constraint.cost.at_least else "down to"
        return f"{text}, {upto} {best:,.6g} with the other bounds kept"

    def _best_beside_the_others(self, constraint: Constraint) -> float | None:
        """The best value of one cost among networks that are cheap in a blend of all."""
        others = tuple(one for one in self.constraints if one != constraint)
        tried = self.ends()
        if constraint.name in self.shares and len(self.shares) > 1:
            rest = [share for name, share in self.shares.items() if name != constraint.name]
            for blend in _BLENDS:
                weights = [blend, *([(1.0 - blend) / len(rest)] * len(rest))]
                tried.append(self.cheapest([self.shares[constraint.name], *rest], weights))
        costs = [self.costs(network) for network in tried]
        kept = [found[constraint.name] for found in costs if slack(others, found) >= 1]
        choose = max if constraint.cost.at_least else min
        return choose(kept, default=None)


def _moved(weights: Sequence[float], spent: Sequence[float]) -> list[float]:
    """More weight to what is overspent."""
    moved = [w * s for w, s in zip(weights, spent, strict=True)]
    return [w / sum(moved) for w in moved]
