"""`variable_patch_embedding` on the CPU: one matrix product per group, C++ for all around it.

Patches do not overlap, so a convolution is a product once pixels lie in rows: (R, D) by the first
rows of the weight, which are contiguous for every width. Products run in float32 also for bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vitresnas.ops import native
from vitresnas.ops.masked_layer_norm import statistics_dtype
from vitresnas.ops.variable_reduction_cpu import token_sums


def forward(
    trunk: Tensor,
    weight: Tensor,
    bias: Tensor,
    prefix_tokens: Tensor,
    position_embedding: Tensor,
    widths: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    kind = statistics_dtype(trunk)
    prefix, (_, tokens, channels) = prefix_tokens.shape[1], position_embedding.shape
    added = [t.to(kind).contiguous() for t in (bias, prefix_tokens, position_embedding)]
    out = trunk.new_empty(len(trunk), tokens, channels, dtype=dtype)
    for images, width in _groups(len(trunk), widths):
        columns_RD = _gather(trunk[images], weight.shape[-1])
        products_RC = columns_RD @ weight[:width].flatten(1).to(kind).T
        code = native.module().patches_forward(
            native.DTYPES[dtype],
            *(t.data_ptr() for t in (products_RC, *added, out[images])),
            *(len(trunk[images]), prefix, tokens - prefix, channels, width),
            torch.get_num_threads(),
        )
        native.check(code, "variable_patch_embedding", trunk=trunk, weight=weight)
    return out


def backward(
    dtokens: Tensor, trunk: Tensor, weight: Tensor, widths: Tensor, prefix: int, need_trunk: bool
) -> tuple[Tensor, ...]:
    kind, patch = statistics_dtype(trunk), weight.shape[-1]
    dtokens = dtokens.contiguous()
    dweight_CD = torch.zeros_like(weight.flatten(1), dtype=kind)
    dtrunk = trunk.new_empty(trunk.shape if need_trunk else (0,))
    for images, width in _groups(len(trunk), widths):
        dproducts_RC = dtokens[images, prefix:, :width].to(kind).flatten(0, 1)
        if width:
            dweight_CD[:width].addmm_(dproducts_RC.T, _gather(trunk[images], patch))
        if need_trunk:
            dcolumns_RD = dproducts_RC @ weight[:width].flatten(1).to(kind)
            _scatter(dcolumns_RD, dtrunk[images], patch)
    dposition, _, dbias = token_sums(dtokens, widths, prefix)
    return (
        dtrunk, dweight_CD.view(weight.shape), dbias, dposition[None, :prefix].clone(),
        dposition[None],
    )  # fmt: skip


def _groups(batch: int, widths: Tensor) -> Iterator[tuple[slice, int]]:
    """Each group's images and width."""
    size = batch // len(widths)
    for group, width in enumerate(widths.tolist() if size else ()):
        yield slice(group * size, (group + 1) * size), width


def _gather(trunk_EMHW: Tensor, patch: int) -> Tensor:
    """Pixels as rows (R, D), in the order of a convolution's weight."""
    rows = len(trunk_EMHW) * (trunk_EMHW.shape[-1] // patch) ** 2
    columns = trunk_EMHW.new_empty(
        rows, trunk_EMHW.shape[1] * patch * patch, dtype=statistics_dtype(trunk_EMHW)
    )
    code = native.module().patches_gather(
        *_shape(trunk_EMHW, patch), trunk_EMHW.data_ptr(), columns.data_ptr()
    )
    native.check(code, "variable_patch_embedding", trunk=trunk_EMHW)
    return columns


def _scatter(columns_RD: Tensor, trunk_EMHW: Tensor, patch: int) -> None:
    code = native.module().patches_scatter(
        *_shape(trunk_EMHW, patch), columns_RD.data_ptr(), trunk_EMHW.data_ptr()
    )
    native.check(code, "variable_patch_embedding_backward", trunk=trunk_EMHW)


def _shape(trunk_EMHW: Tensor, patch: int) -> tuple[int, int, tuple[int, ...]]:
    images, channels, side, _ = trunk_EMHW.shape
    sizes = images, channels, side // patch, patch, *trunk_EMHW.stride()
    return native.DTYPES[trunk_EMHW.dtype], torch.get_num_threads(), sizes
