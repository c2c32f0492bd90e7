"""The group-wise pass as the paper computes it: the full width for everybody, times masks.

Kept as the honest baseline: attention runs through SDPA and masked LayerNorm through our op.

B images in G equal groups, N tokens, C full width, M full hidden, H heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitresnas.models.block import LAYER_NORM_EPS, TransformerBlock, attend
from vitresnas.models.reduction import ResidualSpatialReduction, as_image, reduction_skip
from vitresnas.models.vit_res import ViTRes
from vitresnas.ops.masked_layer_norm import masked_layer_norm
from vitresnas.space.architecture import Architecture, Block
from vitresnas.supernet.drop_path import DropPathScales


def masked_tokens(
    network: ViTRes,
    trunk_BMHW: Tensor,
    architectures: Sequence[Architecture],
    scales: DropPathScales,
) -> Tensor:
    """Trunk features to final-normalised tokens (B, N, C), zero outside each group's width."""
    mask = GroupMasks(trunk_BMHW, len(architectures))
    widths = [architecture.stages[0].embed for architecture in architectures]
    x_BNC = network.embedding.tokens(trunk_BMHW)
    x_BNC = x_BNC * mask.columns(widths, x_BNC)
    for index, stage in enumerate(network.stages):
        before, widths = widths, [a.stages[index].embed for a in architectures]
        if stage.reduction is not None:
            x_BNC = _reduce(stage.reduction, x_BNC, mask, before, widths)
        for position, block in enumerate(stage.blocks):
            choices = [a.stages[index].blocks[position] for a in architectures]
            x_BNC = _block(block, x_BNC, mask, widths, choices, scales.whole(index, position))
    return _norm(network.norm, x_BNC, mask.widths(widths))


class GroupMasks:
    """Makes the masks of one step: B images, in as many contiguous groups as sub-networks."""

    def __init__(self, like_BX: Tensor, groups: int) -> None:
        self._device, self._images = like_BX.device, len(like_BX) // groups

    def widths(self, values: Sequence[int]) -> Tensor:
        """One number per group, as the masked ops read it: int32 (G,)."""
        # Not torch.tensor(device=...), which would wait for the GPU at every mask.
        return torch.tensor(values, dtype=torch.int32).to(self._device, non_blocking=True)

    def columns(self, values: Sequence[int], like_BNX: Tensor) -> Tensor:
        """(B, 1, X): one in the first values[g] columns of group g's images, else zero."""
        columns_X = torch.arange(like_BNX.shape[-1], device=self._device)
        mask_GX = (columns_X < self.widths(values)[:, None]).to(like_BNX.dtype)
        return mask_GX.repeat_interleave(self._images, dim=0)[:, None]


def _block(
    block: TransformerBlock,
    x_BNC: Tensor,
    mask: GroupMasks,
    widths: Sequence[int],
    choices: Sequence[Block | None],
    scales: tuple[Tensor, Tensor] | tuple[None, None],
) -> Tensor:
    attention, mlp = block.attention, block.mlp
    widths_G = mask.widths(widths)
    # A skipped block is one whose branches are masked to nothing.
    live = [width if choice else 0 for width, choice in zip(widths, choices, strict=True)]
    out_BNC = mask.columns(live, x_BNC)
    inner = [choice.heads * attention.head_dim if choice else 0 for choice in choices]
    hidden = [choice.hidden if choice else 0 for choice in choices]

    y_BNC = _norm(block.norm1, x_BNC, widths_G)
    y_BNX = attend(attention.qkv(y_BNC), attention.heads, attention.head_dim)
    y_BNX = y_BNX * mask.columns(inner, y_BNX)
    x_BNC = x_BNC + attention.projection(y_BNX) * _times(out_BNC, scales[0])

    y_BNM = F.gelu(mlp.fc1(_norm(block.norm2, x_BNC, widths_G)))
    y_BNM = y_BNM * mask.columns(hidden, y_BNM)
    return x_BNC + mlp.fc2(y_BNM) * _times(out_BNC, scales[1])


def _reduce(
    reduction: ResidualSpatialReduction,
    x_BNC: Tensor,
    mask: GroupMasks,
    widths_in: Sequence[int],
    widths_out: Sequence[int],
) -> Tensor:
    prefix, grid = reduction.prefix, reduction.grid
    y_BNC = _norm(reduction.norm, x_BNC, mask.widths(widths_in))
    prefix_BPK = reduction.prefix_projection(y_BNC[:, :prefix])
    image_BKSS = reduction.convolution(as_image(y_BNC[:, prefix:], grid))
    patches_BNK = image_BKSS.flatten(2).transpose(1, 2) + reduction.position_embedding
    path_BNK = torch.cat((prefix_BPK, patches_BNK), dim=1)
    path_BNK = path_BNK * mask.columns(widths_out, path_BNK)
    return path_BNK + reduction_skip(x_BNC, path_BNK.shape[-1], grid, prefix)


def _norm(norm: nn.LayerNorm, x_BNC: Tensor, widths_G: Tensor) -> Tensor:
    return masked_layer_norm(x_BNC, norm.weight, norm.bias, widths_G, LAYER_NORM_EPS)


def _times(mask_BNC: Tensor, scale_B11: Tensor | None) -> Tensor:
    return mask_BNC if scale_B11 is None else mask_BNC * scale_B11
