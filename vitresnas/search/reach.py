"""What a space can reach: its extreme networks, found exactly rather than guessed.

The narrowest network is not always the fastest, so it is not taken for it. Costs here are sums
over operations. Once the widths of all stages are fixed, blocks do not know of each other, so the
best block is the best of all pairs of heads and hidden units; the combinations of widths are few
and all are tried.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import product

from vitresnas.search.constraint import (
    OF_TABLES,
    AdditiveThroughput,
    Constraint,
    CostReach,
    Piece,
    Throughput,
    table_costs,
)
from vitresnas.space import Architecture, Block, Operation, SearchSpace, Stage, operations


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


def cost_reach(space: SearchSpace, name: str, throughput: Throughput | None) -> CostReach | None:
    """The range of a cost over a space; None where it cannot be told before searching."""
    if name in _PIECES:
        low, high = cheapest(space, _PIECES[name]), dearest(space, _PIECES[name])
        return CostReach(total(low, _PIECES[name]), total(high, _PIECES[name]), low)
    if name in OF_TABLES:
        return table_costs(throughput, name).cost_reach(name, space)
    if not isinstance(throughput, AdditiveThroughput):
        return None  # a plain function
    reach = throughput_reach(space, throughput)
    return CostReach(reach.minimum, reach.bound, reach.fastest)


def share_of_bound(
    space: SearchSpace, constraint: Constraint, throughput: Throughput | None
) -> Piece | None:
    """Prices operations so that a network which keeps the constraint sums to at most 1.

    None where the cost is no such sum.
    """
    name, bound = constraint.name, constraint.bound
    if name in _PIECES:
        return lambda operation: _PIECES[name](operation) / bound
    if name in OF_TABLES:
        asked = table_costs(throughput, name).as_throughput(name, bound)
        return None if asked is None else _share_of_time(space, *asked)
    if isinstance(throughput, AdditiveThroughput):
        return _share_of_time(space, throughput, bound)
    return None


def _share_of_time(
    space: SearchSpace, throughput: AdditiveThroughput, images_per_second: float
) -> Piece | None:
    tightest = max(throughput.pieces, key=lambda piece: total(cheapest(space, piece), piece))
    # Seconds per image are affine in the sum of pieces: two points tell what the sum may be.
    one, two = (1.0 / throughput.images_per_second_of(pieces) for pieces in (1.0, 2.0))
    allowed = 1.0 + (1.0 / images_per_second - one) / (two - one)
    return (lambda operation: tightest(operation) / allowed) if allowed > 0 else None


_PIECES: dict[str, Piece] = {
    "macs": lambda operation: operation.macs,
    "parameters": lambda operation: operation.parameters,
}


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
