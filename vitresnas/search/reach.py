"""What a space can reach: its extreme networks, found exactly rather than guessed.

The narrowest network is not always the fastest, so it is not taken for it. Costs here are sums
over operations. Once the widths of all stages are fixed, blocks do not know of each other, so the
best block is the best of all pairs of heads and hidden units; the combinations of widths are few
and all are tried.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol, runtime_checkable

from vitresnas.errors import UnreachableTarget
from vitresnas.search.constraint import (
    OF_TABLES,
    Constraint,
    Throughput,
    costs_of,
    slack,
    table_costs,
)
from vitresnas.space import Architecture, Block, Operation, SearchSpace, Stage, operations

Piece = Callable[[Operation], float]


@runtime_checkable
class AdditiveThroughput(Protocol):
    """A prediction whose time is a sum over operations, or bounded from below by such sums.

    For each piece function p, milliseconds(a) >= constant + sum of p over operations(a), and the
    largest of them is attained; one function alone means equality.
    """

    @property
    def pieces(self) -> Sequence[Piece]: ...

    def images_per_second(self, architecture: Architecture) -> float: ...

    def images_per_second_of(self, pieces_milliseconds: float) -> float:
        """The throughput of a network whose pieces sum to this."""
        ...


@dataclass(frozen=True)
class Reach:
    """The predicted speeds of a space. No network is faster than `bound`; `fastest` attains it
    wherever the price is one plain sum."""

    slowest: Architecture
    fastest: Architecture
    minimum: float
    maximum: float
    bound: float


def throughput_reach(space: SearchSpace, throughput: AdditiveThroughput) -> Reach:
    """The slowest and the fastest predicted network, in images per second."""
    speed = throughput.images_per_second
    lows = [cheapest(space, piece) for piece in throughput.pieces]
    highs = [dearest(space, piece) for piece in throughput.pieces]
    fastest, slowest = max(lows, key=speed), min(highs, key=speed)
    # Every sum bounds the time from below, so the dearest of the cheapest is the best bound.
    least = max(total(low, piece) for low, piece in zip(lows, throughput.pieces, strict=True))
    maximum = speed(fastest)
    bound = maximum if len(lows) == 1 else max(maximum, throughput.images_per_second_of(least))
    return Reach(slowest, fastest, speed(slowest), maximum, bound)


def find_lean(
    space: SearchSpace, constraints: Sequence[Constraint], throughput: Throughput | None
) -> Architecture:
    """A network with much slack under all constraints together, to steer draws towards.

    Raises UnreachableTarget, naming the reachable range, for a constraint that no network keeps.
    """
    candidates = [space.smallest]
    reciprocal_bounds: list[tuple[Piece, float]] = []
    for constraint in constraints:
        if constraint.name == "throughput":
            if not isinstance(throughput, AdditiveThroughput):
                continue  # a plain function: nothing can be proved before searching
            reach = throughput_reach(space, throughput)
            candidates.append(reach.fastest)
            if constraint.bound > reach.bound:
                raise _unreachable(space, constraint, reach.minimum, reach.maximum)
            piece, scale = throughput.pieces[0], total(reach.fastest, throughput.pieces[0])
        elif constraint.name in OF_TABLES:
            if throughput is None:
                continue  # asked again when there is a table
            found = table_costs(throughput, constraint.name).cost_reach(constraint.name, space)
            candidates.append(found.lean)
            if found.minimum > constraint.bound:
                raise _unreachable(space, constraint, found.minimum, found.maximum)
            continue
        else:
            piece = _PIECES[constraint.name]
            low, high = cheapest(space, piece), dearest(space, piece)
            candidates.append(low)
            if total(low, piece) > constraint.bound:
                raise _unreachable(space, constraint, total(low, piece), total(high, piece))
            scale = constraint.bound
        reciprocal_bounds.append((piece, scale))
    if len(reciprocal_bounds) > 1:
        candidates.append(
            cheapest(space, lambda op: sum(piece(op) / scale for piece, scale in reciprocal_bounds))
        )
    names = [constraint.name for constraint in constraints]
    if throughput is None:  # then only what needs no table is steered by
        constraints = [one for one in constraints if one.name not in (*OF_TABLES, "throughput")]
        names = []
    return max(candidates, key=lambda a: slack(tuple(constraints), costs_of(a, throughput, names)))


_PIECES: dict[str, Piece] = {
    "macs": lambda operation: operation.macs,
    "parameters": lambda operation: operation.parameters,
}


def _unreachable(
    space: SearchSpace, constraint: Constraint, low: float, high: float
) -> UnreachableTarget:
    unit = constraint.cost.unit
    return UnreachableTarget(
        f"no network of the space {space.name} keeps {constraint}: they reach from {low:,.6g} to "
        f"{high:,.6g} {unit}; choose a bound inside that range"
    )


def cheapest(space: SearchSpace, piece: Piece) -> Architecture:
    """The network with the least sum of `piece` over its operations; pieces cost at least 0."""
    return _extreme(space, piece, 1)


def dearest(space: SearchSpace, piece: Piece) -> Architecture:
    """The network with the greatest sum of `piece` over its operations."""
    return _extreme(space, piece, -1)


def total(architecture: Architecture, piece: Piece) -> float:
    return math.fsum(piece(operation) for operation in operations(architecture))


def _extreme(space: SearchSpace, piece: Piece, sign: int) -> Architecture:
    best = {
        (index, embed): _best_stage(space, index, embed, piece, sign)
        for index, choices in enumerate(space.stages)
        for embed in choices.embed
    }

    def cost(widths: tuple[int, ...]) -> float:
        frame = tuple(_empty_stage(space, i, embed) for i, embed in enumerate(widths))
        between = total(replace(space.largest, stages=frame), piece)
        return sign * (between + sum(best[key][1] for key in enumerate(widths)))

    widths = min(product(*(choices.embed for choices in space.stages)), key=cost)
    return replace(space.largest, stages=tuple(best[key][0] for key in enumerate(widths)))


def _best_stage(
    space: SearchSpace, index: int, embed: int, piece: Piece, sign: int
) -> tuple[Stage, float]:
    """The extreme stage of a width, and what its blocks cost together."""
    choices = space.stages[index]
    costs = {
        Block(heads, hidden): _block_cost(space, index, embed, Block(heads, hidden), piece)
        for heads, hidden in product(choices.heads, choices.hidden)
    }
    block = min(costs, key=lambda block: sign * costs[block])
    blocks = tuple(
        None if sign > 0 and choices.may_skip(position) else block
        for position in range(choices.blocks)
    )
    kept = sum(found is not None for found in blocks)
    return Stage(embed, choices.head_dim, blocks), kept * costs[block]


def _block_cost(space: SearchSpace, index: int, embed: int, block: Block, piece: Piece) -> float:
    """The operations that a block adds to a network, priced; the rest of it does not matter."""
    empty = _empty_stage(space, index, embed)

    def pieces(stage: Stage) -> Counter[Operation]:
        stages = (*space.largest.stages[:index], stage, *space.largest.stages[index + 1 :])
        return Counter(operations(replace(space.largest, stages=stages)))

    added = pieces(replace(empty, blocks=(block,))) - pieces(empty)
    return math.fsum(piece(operation) * count for operation, count in added.items())


def _empty_stage(space: SearchSpace, index: int, embed: int) -> Stage:
    return Stage(embed, space.stages[index].head_dim, ())
