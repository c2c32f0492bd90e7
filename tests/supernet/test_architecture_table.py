"""The architecture table says exactly what the architectures say."""

from __future__ import annotations

from random import Random

import torch

from vitresnas.space import SearchSpace
from vitresnas.supernet import draw_architectures
from vitresnas.supernet.architecture_table import FIELDS, block_row, encode


def test_every_row_holds_the_widths_of_its_block(space: SearchSpace) -> None:
    architectures = draw_architectures(space, 6, Random(2))
    table = encode(architectures)
    assert table.shape == (space.largest.depth, len(FIELDS), 6) and table.dtype == torch.int32
    for group, architecture in enumerate(architectures):
        index = 0
        for number, stage in enumerate(architecture.stages):
            following = architecture.stages[min(number + 1, len(architecture.stages) - 1)]
            for position, block in enumerate(stage.blocks):
                row = block_row(table, index)
                found = [int(getattr(row, field)[group]) for field in FIELDS]
                kept = [0, 0, 0, 0]
                if block is not None:
                    inner = block.heads * stage.head_dim
                    kept = [stage.embed, block.heads, inner, block.hidden]
                after = following.embed if position == len(stage.blocks) - 1 else stage.embed
                assert found == [stage.embed, *kept, after]
                index += 1


def test_each_field_of_a_row_is_one_contiguous_vector(space: SearchSpace) -> None:
    row = block_row(encode(draw_architectures(space, 3, Random(0))), 1)
    assert all(getattr(row, field).is_contiguous() for field in FIELDS)
