"""The group-wise pass by slices: every group uses its own part of the weights, nothing is wasted.

Activations are a list with one tensor per group, each of its own width; layer by layer all groups
share one weight, and its gradient is written into one full-size buffer.

E images of a group, N tokens, C width, M hidden, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitresnas.models.block import LAYER_NORM_EPS, Attention, Mlp, attend
from vitresnas.models.embedding import PatchEmbedding
from vitresnas.models.reduction import ResidualSpatialReduction, as_image, reduction_skip
from vitresnas.models.vit_res import ViTRes
from vitresnas.space.architecture import Architecture
from vitresnas.supernet.drop_path import DropPathScales
from vitresnas.supernet.sliced_linear import sliced_linear

Groups = list[Tensor]


def sliced_tokens(
    network: ViTRes,
    trunk_BMHW: Tensor,
    architectures: Sequence[Architecture],
    scales: DropPathScales,
) -> Groups:
    """Trunk features (B, M, h, w) to final-normalised tokens, one (E, N, C) tensor per group."""
    groups = range(len(architectures))
    xs = _embed(network.embedding, trunk_BMHW, [a.stages[0].embed for a in architectures])
    for index, stage in enumerate(network.stages):
        widths = [architecture.stages[index].embed for architecture in architectures]
        if stage.reduction is not None:
            xs = _reduce(stage.reduction, xs, widths)
        for position, block in enumerate(stage.blocks):
            choices = [a.stages[index].blocks[position] for a in architectures]
            live = [(g, choice) for g, choice in zip(groups, choices, strict=True) if choice]
            if not live:
                continue
            attention_scale_G, mlp_scale_G = scales.of(index, position)
            ys = [xs[g] for g, _ in live]
            heads = [choice.heads for _, choice in live]
            branch = _attention(block.attention, _norm(block.norm1, ys), heads)
            ys = _residual(ys, branch, attention_scale_G, live)
            hidden = [choice.hidden for _, choice in live]
            branch = _mlp(block.mlp, _norm(block.norm2, ys), hidden)
            ys = _residual(ys, branch, mlp_scale_G, live)
            for (g, _), y in zip(live, ys, strict=True):
                xs[g] = y
    return _norm(network.norm, xs)


def sliced_heads(network: ViTRes, tokens: Groups, *, patches: bool) -> dict[str, Tensor]:
    """Logits of the whole batch by head name; see ViTRes.forward_heads."""
    prefix = network.architecture.prefix_tokens
    logits = {"class": _classify(network.head, [x_ENC[:, 0] for x_ENC in tokens])}
    if network.distillation_head is not None:
        second = [x_ENC[:, 1] for x_ENC in tokens]
        logits["distillation"] = _classify(network.distillation_head, second)
    if patches and network.patch_head is not None:
        rest = [x_ENC[:, prefix:] for x_ENC in tokens]
        logits["patch"] = _classify(network.patch_head, rest)
    return logits


def _embed(embedding: PatchEmbedding, trunk_BMHW: Tensor, widths: Sequence[int]) -> Groups:
    projection = embedding.projection
    xs = []
    for trunk_EMHW, width in zip(trunk_BMHW.chunk(len(widths)), widths, strict=True):
        image = F.conv2d(
            trunk_EMHW,
            projection.weight[:width],
            None if projection.bias is None else projection.bias[:width],
            stride=projection.stride,
        )
        patches_ENC = image.flatten(2).transpose(1, 2)
        prefix_ENC = embedding.prefix_tokens[..., :width].expand(len(patches_ENC), -1, -1)
        tokens_ENC = torch.cat((prefix_ENC, patches_ENC), dim=1)
        xs.append(tokens_ENC + embedding.position_embedding[..., :width])
    return xs


def _norm(norm: nn.LayerNorm, xs: Groups) -> Groups:
    widths = [x_ENC.shape[-1] for x_ENC in xs]
    return [
        F.layer_norm(x_ENC, (c,), norm.weight[:c], norm.bias[:c], LAYER_NORM_EPS)
        for x_ENC, c in zip(xs, widths, strict=True)
    ]


def _attention(attention: Attention, xs: Groups, heads: Sequence[int]) -> Groups:
    head_dim = attention.head_dim
    qkv = sliced_linear(xs, attention.qkv, [3 * h * head_dim for h in heads], segments=3)
    outs = [attend(x, h, head_dim) for x, h in zip(qkv, heads, strict=True)]
    return sliced_linear(outs, attention.projection, [x_ENC.shape[-1] for x_ENC in xs])


def _mlp(mlp: Mlp, xs: Groups, hidden: Sequence[int]) -> Groups:
    activated = [F.gelu(x_ENM) for x_ENM in sliced_linear(xs, mlp.fc1, hidden)]
    return sliced_linear(activated, mlp.fc2, [x_ENC.shape[-1] for x_ENC in xs])


def _residual(
    xs: Groups,
    branches: Groups,
    scales_G: Sequence[Tensor] | None,
    live: Sequence[tuple[int, object]],
) -> Groups:
    if scales_G is None:
        return [x + branch for x, branch in zip(xs, branches, strict=True)]
    return [x + branch * scales_G[g] for x, branch, (g, _) in zip(xs, branches, live, strict=True)]


def _reduce(reduction: ResidualSpatialReduction, xs: Groups, widths: Sequence[int]) -> Groups:
    prefix, grid = reduction.prefix, reduction.grid
    ys = _norm(reduction.norm, xs)
    prefixes = sliced_linear([y[:, :prefix] for y in ys], reduction.prefix_projection, widths)
    convolution, outs = reduction.convolution, []
    for x_ENC, y_ENC, prefix_EPK, width in zip(xs, ys, prefixes, widths, strict=True):
        image = F.conv2d(
            as_image(y_ENC[:, prefix:], grid),
            convolution.weight[:width, : x_ENC.shape[-1]],
            None if convolution.bias is None else convolution.bias[:width],
            stride=2,
            padding=1,
        )
        patches_ENK = image.flatten(2).transpose(1, 2)
        patches_ENK = patches_ENK + reduction.position_embedding[..., :width]
        path_ENK = torch.cat((prefix_EPK, patches_ENK), dim=1)
        outs.append(path_ENK + reduction_skip(x_ENC, width, grid, prefix))
    return outs


def _classify(head: nn.Linear, xs: Groups) -> Tensor:
    return torch.cat(sliced_linear(xs, head, [head.out_features] * len(xs)))
