"""The group-wise pass by variable-width kernels: full-width storage, active-width work.

Activations of all groups share one tensor with full rows; widths come from the architecture table
on the device (see architecture_table.py). What lies beyond a group's width is never read.

B images, N tokens, C full width, P prefix tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitresnas.models.block import LAYER_NORM_EPS, TransformerBlock
from vitresnas.models.embedding import PatchEmbedding
from vitresnas.models.reduction import ResidualSpatialReduction
from vitresnas.models.vit_res import ViTRes
from vitresnas.ops.masked_layer_norm import masked_layer_norm, masked_layer_norm_residual
from vitresnas.ops.variable_attention import variable_attention
from vitresnas.ops.variable_linear import variable_linear, variable_linear_residual
from vitresnas.ops.variable_mlp import variable_mlp
from vitresnas.ops.variable_patch_embedding import variable_patch_embedding
from vitresnas.ops.variable_reduction import variable_reduction
from vitresnas.supernet.architecture_table import BlockRow, block_row
from vitresnas.supernet.drop_path import DropPathScales


def fused_tokens(
    network: ViTRes, trunk_BMHW: Tensor, table_LFG: Tensor, scales: DropPathScales
) -> Tensor:
    """Trunk features to tokens (B, N, C) before the final norm."""
    row = block_row(table_LFG, 0)
    x_BNC = _embed(network.embedding, trunk_BMHW, row.embed)
    index = 0
    for stage_index, stage in enumerate(network.stages):
        if stage.reduction is not None:
            x_BNC = _reduce(stage.reduction, x_BNC, row)
        for position, block in enumerate(stage.blocks):
            row = block_row(table_LFG, index)
            x_BNC = _block(block, x_BNC, row, scales.whole(stage_index, position))
            index += 1
    return x_BNC


def fused_heads(
    network: ViTRes, tokens_BNC: Tensor, table_LFG: Tensor, *, patches: bool
) -> dict[str, Tensor]:
    """Logits by head name; see ViTRes.forward_heads. Normalises only the tokens that it needs."""
    prefix = network.architecture.prefix_tokens
    wanted = patches and network.patch_head is not None
    embed_G = table_LFG[-1, 0]
    x_BNC = tokens_BNC if wanted else tokens_BNC[:, :prefix]
    norm = network.norm
    y_BNC = masked_layer_norm(
        x_BNC, norm.weight, norm.bias, embed_G, LAYER_NORM_EPS,
        dtype=compute_dtype(x_BNC), padded=True,
    )  # fmt: skip
    logits = {"class": _classify(network.head, y_BNC[:, :1], embed_G)[:, 0]}
    if network.distillation_head is not None:
        logits["distillation"] = _classify(network.distillation_head, y_BNC[:, 1:2], embed_G)[:, 0]
    if wanted:
        assert network.patch_head is not None
        logits["patch"] = _classify(network.patch_head, y_BNC[:, prefix:], embed_G)
    return logits


def compute_dtype(like: Tensor) -> torch.dtype:
    """The type of matrix products: autocast's, or that of the activations."""
    device = like.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return like.dtype


def _embed(embedding: PatchEmbedding, trunk_BMHW: Tensor, embed_G: Tensor) -> Tensor:
    projection = embedding.projection
    assert projection.bias is not None  # nn.Conv2d's own default
    return variable_patch_embedding(
        trunk_BMHW.to(compute_dtype(trunk_BMHW)), projection.weight, projection.bias,
        embedding.prefix_tokens, embedding.position_embedding, embed_G,
    )  # fmt: skip


def _block(
    block: TransformerBlock,
    x_BNC: Tensor,
    row: BlockRow,
    scales: tuple[Tensor, Tensor] | tuple[None, None],
) -> Tensor:
    attention, mlp = block.attention, block.mlp
    # Factors are as precise as the sums they enter: float64 among float64, float32 otherwise.
    kind = torch.float64 if x_BNC.dtype == torch.float64 else torch.float32
    attention_B, mlp_B = (None if s is None else s.flatten().to(kind) for s in scales)
    y_BNC, x_BNC = _norm_residual(block.norm1, x_BNC, row.live, row.embed)
    qkv_BNX = variable_linear(
        y_BNC, attention.qkv.weight, attention.qkv.bias, row.live, row.inner, segments=3
    )
    y_BNX = variable_attention(qkv_BNX, row.heads, attention.head_dim)
    projection = attention.projection
    x_BNC = variable_linear_residual(
        y_BNX, projection.weight, projection.bias, row.inner, row.embed, x_BNC, attention_B
    )
    y_BNC, x_BNC = _norm_residual(block.norm2, x_BNC, row.live, row.embed)
    return variable_mlp(
        y_BNC, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias,
        row.embed, row.hidden, x_BNC, mlp_B,
    )  # fmt: skip


def _reduce(reduction: ResidualSpatialReduction, x_BNC: Tensor, row: BlockRow) -> Tensor:
    y_BNC, x_BNC = _norm_residual(reduction.norm, x_BNC, row.embed, row.embed)
    convolution, prefix = reduction.convolution, reduction.prefix_projection
    assert convolution.bias is not None
    return variable_reduction(
        x_BNC, y_BNC, convolution.weight, convolution.bias, reduction.position_embedding,
        prefix.weight, prefix.bias, row.embed, row.next_embed,
        grid=reduction.grid, prefix=reduction.prefix,
    )  # fmt: skip


def _norm_residual(
    norm: nn.LayerNorm, x_BNC: Tensor, live_G: Tensor, embed_G: Tensor
) -> tuple[Tensor, Tensor]:
    return masked_layer_norm_residual(
        x_BNC, norm.weight, norm.bias, live_G, embed_G, LAYER_NORM_EPS, dtype=compute_dtype(x_BNC)
    )


def _classify(head: nn.Linear, y_BNC: Tensor, embed_G: Tensor) -> Tensor:
    all_G = torch.full_like(embed_G, head.out_features)
    return variable_linear(y_BNC, head.weight, head.bias, embed_G, all_G)
