"""The group-wise pass as the paper computes it: the full width for everybody, times masks.

Kept as the honest baseline: attention runs through SDPA and masked LayerNorm through our op.

B images in G equal groups, N tokens, C full width, M full hidden, H heads, D head dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitresnas.models.block import LAYER_NORM_EPS, TransformerBlock, attend
from vitresnas.models.reduction import ResidualSpatialReduction, as_image, reduction_skip
from vitresnas.models.vit_res import ViTRes
from vitresnas.ops.masked_layer_norm import masked_layer_norm, reference
from vitresnas.supernet.architecture_table import BlockRow, block_row
from vitresnas.supernet.drop_path import DropPathScales


def masked_tokens(
    network: ViTRes, trunk_BMHW: Tensor, table_LFG: Tensor, scales: DropPathScales
) -> Tensor:
    """Trunk features to final-normalised tokens (B, N, C), zero outside each group's width."""
    row = block_row(table_LFG, 0)
    x_BNC = network.embedding.tokens(trunk_BMHW)
    x_BNC = x_BNC * columns(row.embed, x_BNC)
    index = 0
    for stage_index, stage in enumerate(network.stages):
        if stage.reduction is not None:
            x_BNC = _reduce(stage.reduction, x_BNC, row)
        for position, block in enumerate(stage.blocks):
            row = block_row(table_LFG, index)
            x_BNC = _block(block, x_BNC, row, scales.whole(stage_index, position))
            index += 1
    return _norm(network.norm, x_BNC, row.embed)


def columns(widths_G: Tensor, like_BNX: Tensor) -> Tensor:
    """The mask (B, 1, X): one in the first widths[g] columns of group g's images, else zero."""
    columns_X = torch.arange(like_BNX.shape[-1], device=like_BNX.device)
    mask_GX = (columns_X < widths_G[:, None]).to(like_BNX.dtype)
    return mask_GX.repeat_interleave(len(like_BNX) // len(widths_G), dim=0)[:, None]


def _block(
    block: TransformerBlock,
    x_BNC: Tensor,
    row: BlockRow,
    scales: tuple[Tensor, Tensor] | tuple[None, None],
) -> Tensor:
    attention, mlp = block.attention, block.mlp
    # A skipped block is one whose branches are masked to nothing.
    out_BNC = columns(row.live, x_BNC)

    y_BNC = _norm(block.norm1, x_BNC, row.embed)
    y_BNX = attend(attention.qkv(y_BNC), attention.heads, attention.head_dim)
    y_BNX = y_BNX * columns(row.inner, y_BNX)
    x_BNC = x_BNC + attention.projection(y_BNX) * _times(out_BNC, scales[0])

    y_BNM = F.gelu(mlp.fc1(_norm(block.norm2, x_BNC, row.embed)))
    y_BNM = y_BNM * columns(row.hidden, y_BNM)
    return x_BNC + mlp.fc2(y_BNM) * _times(out_BNC, scales[1])


def _reduce(reduction: ResidualSpatialReduction, x_BNC: Tensor, row: BlockRow) -> Tensor:
    prefix, grid = reduction.prefix, reduction.grid
    y_BNC = _norm(reduction.norm, x_BNC, row.embed)
    prefix_BPK = reduction.prefix_projection(y_BNC[:, :prefix])
    image_BKSS = reduction.convolution(as_image(y_BNC[:, prefix:], grid))
    patches_BNK = image_BKSS.flatten(2).transpose(1, 2) + reduction.position_embedding
    path_BNK = torch.cat((prefix_BPK, patches_BNK), dim=1)
    path_BNK = path_BNK * columns(row.next_embed, path_BNK)
    return path_BNK + reduction_skip(x_BNC, path_BNK.shape[-1], grid, prefix)


def _norm(norm: nn.LayerNorm, x_BNC: Tensor, widths_G: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # in a compiled graph plain torch fuses with its neighbours
        return reference(x_BNC, norm.weight, norm.bias, widths_G, LAYER_NORM_EPS)
    return masked_layer_norm(x_BNC, norm.weight, norm.bias, widths_G, LAYER_NORM_EPS)


def _times(mask_BNC: Tensor, scale_B11: Tensor | None) -> Tensor:
    return mask_BNC if scale_B11 is None else mask_BNC * scale_B11
