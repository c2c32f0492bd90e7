"""Networks of a space as short rows of numbers, and every network of a small space in order.

A code holds, stage by stage, the index of the width, then for each block 0 where it is skipped and
1 + heads index x hidden choices + hidden index where it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, product

from vitresnas.errors import MismatchError
from vitresnas.space.architecture import Architecture, Block
from vitresnas.space.search_space import SearchSpace, StageChoices

Code = tuple[int, ...]


def encode(space: SearchSpace, architecture: Architecture) -> Code:
    """The code of a network. Raises MismatchError where it is not in the space."""
    reason = space.reason_outside(architecture)
    if reason:
        raise MismatchError(
            f"architecture {architecture.id} is not in the space {space.name}: {reason}"
        )
    code = []
    for choices, stage in zip(space.stages, architecture.stages, strict=True):
        code.append(choices.embed.index(stage.embed))
        code += [0 if block is None else _block_code(choices, block) for block in stage.blocks]
    return tuple(code)


def decode(space: SearchSpace, code: Sequence[int]) -> Architecture:
    """The network of a code that `encode` or `every_code` gave."""
    starts, place = [], 0
    for choices in space.stages:
        starts.append(place)
        place += 1 + choices.blocks

    def block(stage: int, choices: StageChoices, position: int) -> Block:
        heads, hidden = divmod(code[starts[stage] + 1 + position] - 1, len(choices.hidden))
        return Block(choices.heads[heads], choices.hidden[hidden])

    return space.assemble(
        lambda stage, choices: choices.embed[code[starts[stage]]],
        lambda stage, position: code[starts[stage] + 1 + position] == 0,
        block,
    )


def every_code(space: SearchSpace) -> Iterator[Code]:
    """All `space.size` codes in rising order, so that neighbours share their first stages."""
    stages = [
        [
            (embed, *blocks)
            for embed in range(len(choices.embed))
            for blocks in _block_codes(choices, 0, False)
        ]
        for choices in space.stages
    ]
    return (tuple(chain.from_iterable(parts)) for parts in product(*stages))


def _block_code(choices: StageChoices, block: Block) -> int:
    heads, hidden = choices.heads.index(block.heads), choices.hidden.index(block.hidden)
    return 1 + heads * len(choices.hidden) + hidden


def _block_codes(choices: StageChoices, position: int, follows: bool) -> Iterator[Code]:
    """What the blocks from `position` on may be; `follows` a skipped one."""
    if position == choices.blocks:
        yield ()
        return
    may_skip = choices.may_skip(position)
    kept = range(0) if follows and may_skip else range(len(choices.heads) * len(choices.hidden))
    for first in ([0] if may_skip else []) + [1 + index for index in kept]:
        for rest in _block_codes(choices, position + 1, first == 0):
            yield first, *rest
