"""The architecture table: what every group runs in every block, as one small device tensor.

Kernels read their widths from it, so that shapes, pointers and launches never depend on which
sub-networks were drawn: the same CUDA graph, and the same compiled program, serves them all.

L blocks of the largest network, F fields, G groups. Field-major, (L, F, G) and not (L, G, F):
each op then reads one contiguous vector, its widths by group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitresnas.space.architecture import Architecture, Stage

FIELDS = ("embed", "live", "heads", "inner", "hidden", "next_embed")


@dataclass(frozen=True)
class BlockRow:
    """One block's widths, each int32 (G,); a group that skips the block has zeros in some.

    embed: channels of the stage. live: the same, 0 where skipped. heads, inner, hidden: attention
    heads, their channels together, and the MLP's channels, 0 where skipped. next_embed: channels
    after this block, which differ from `embed` only where a reduction follows.
    """

    embed: Tensor
    live: Tensor
    heads: Tensor
    inner: Tensor
    hidden: Tensor
    next_embed: Tensor


def block_row(table_LFG: Tensor, index: int) -> BlockRow:
    """Row `index` of the table, blocks counted through all stages."""
    return BlockRow(*table_LFG[index].unbind())


def encode(architectures: Sequence[Architecture]) -> Tensor:
    """The table (L, F, G), int32, on the CPU; in pinned memory where a GPU may fetch it."""
    rows = zip(*(_rows(architecture) for architecture in architectures), strict=True)
    table_LGF = torch.tensor(list(rows), dtype=torch.int32)
    table_LFG = table_LGF.transpose(1, 2).contiguous()
    return table_LFG.pin_memory() if torch.cuda.is_available() else table_LFG


def _rows(architecture: Architecture) -> list[tuple[int, ...]]:
    stages: tuple[Stage, ...] = architecture.stages
    rows: list[tuple[int, ...]] = []
    for index, stage in enumerate(stages):
        last = len(stage.blocks) - 1
        following = stages[index + 1].embed if index + 1 < len(stages) else stage.embed
        for position, block in enumerate(stage.blocks):
            heads, hidden = (block.heads, block.hidden) if block else (0, 0)
            rows.append(
                (
                    stage.embed,
                    stage.embed if block else 0,
                    heads,
                    heads * stage.head_dim,
                    hidden,
                    following if position == last else stage.embed,
                )
            )
    return rows
