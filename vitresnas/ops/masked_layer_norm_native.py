"""Masked layer normalisation through vitresnas._C: C++ on a CPU, CUDA C++ on a GPU.

Memory is allocated here; the compiled functions take addresses. Arguments as in
masked_layer_norm_reference.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitresnas.ops import native
from vitresnas.ops.masked_layer_norm_reference import nothing_masked, statistics_dtype

CHUNKS = 64  # of a CPU's backward pass, over all groups
CHUNK_ROWS = 64  # at least, in each
BLOCKS = 396  # of a GPU's: the three that fit on each multiprocessor of an H100 or H200
BLOCK_ROWS = 4  # one for each warp
MAX_CHANNELS = 1024  # that a warp of the CUDA kernel holds in registers


def forward_cpp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: Tensor,
    eps: float,
    dtype: torch.dtype | None = None,
    padded: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    x, y, mean, rstd = _outputs(x, dtype)
    weight, bias = (t.to(mean.dtype).contiguous() for t in (weight, bias))
    code = native.module().masked_layer_norm_forward(
        *(native.DTYPES[t.dtype] for t in (x, y)),
        *(t.data_ptr() for t in (x, weight, bias, widths, y, mean, rstd)),
        *_sizes(x, widths),
        eps,
        padded,
        torch.get_num_threads(),
    )
    native.check(code, "masked_layer_norm", x=x, weight=weight, widths=widths)
    return y, mean, rstd


def backward_cpp(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    widths: Tensor,
    residual: Tensor | None = None,
    skip_widths: Tensor | None = None,
    padded: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    dy, x = dy.contiguous(), x.contiguous()
    residual = None if residual is None else residual.contiguous()
    weight_C = weight.to(mean.dtype).contiguous()
    rows, channels, groups = _sizes(x, widths)
    # A fixed cut, whatever the number of threads: partial sums then add up in one fixed order.
    chunks = max(1, min(CHUNKS // groups, rows // groups // CHUNK_ROWS))
    partials = mean.new_empty((groups * chunks, 2, channels))
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight_C), torch.empty_like(weight_C)
    code = native.module().masked_layer_norm_backward(
        *(native.DTYPES[t.dtype] for t in (x, dy)),
        *(t.data_ptr() for t in (dy, x, mean, rstd, weight_C, widths)),
        *(0 if t is None else t.data_ptr() for t in (residual, skip_widths)),
        *(t.data_ptr() for t in (dx, partials, dweight, dbias)),
        rows,
        channels,
        groups,
        chunks,
        padded,
        torch.get_num_threads(),
    )
    native.check(code, "masked_layer_norm_backward", dy=dy, x=x, widths=widths)
    return dx, dweight.to(weight.dtype), dbias.to(weight.dtype)


def forward_cuda(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: Tensor,
    eps: float,
    dtype: torch.dtype | None = None,
    padded: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    x, y, mean, rstd = _outputs(aligned(x), dtype)
    weight, bias = (aligned(t.to(mean.dtype)) for t in (weight, bias))
    with torch.cuda.device_of(x):
        code = native.module().masked_layer_norm_forward_cuda(
            *(native.DTYPES[t.dtype] for t in (x, y)),
            *(t.data_ptr() for t in (x, weight, bias, widths, y, mean, rstd)),
            *_sizes(x, widths),
            eps,
            padded,
            native.stream(x),
        )
    native.check(code, "masked_layer_norm", x=x, weight=weight, widths=widths)
    return y, mean, rstd


def backward_cuda(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    widths: Tensor,
    residual: Tensor | None = None,
    skip_widths: Tensor | None = None,
    padded: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    dy, x = aligned(dy), aligned(x)
    residual = None if residual is None else aligned(residual)
    weight_C = aligned(weight.to(mean.dtype))
    rows, channels, groups = _sizes(x, widths)
    chunks = max(1, min(BLOCKS // groups, -(-rows // groups // BLOCK_ROWS)))
    partials = mean.new_empty((groups * chunks, 2, channels))
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight_C), torch.empty_like(weight_C)
    with torch.cuda.device_of(x):
        code = native.module().masked_layer_norm_backward_cuda(
            *(native.DTYPES[t.dtype] for t in (x, dy)),
            *(t.data_ptr() for t in (dy, x, mean, rstd, weight_C, widths)),
            *(0 if t is None else t.data_ptr() for t in (residual, skip_widths)),
            *(t.data_ptr() for t in (dx, partials, dweight, dbias)),
            rows,
            channels,
            groups,
            chunks,
            padded,
            native.stream(x),
        )
    native.check(code, "masked_layer_norm_backward", dy=dy, x=x, widths=widths)
    return dx, dweight.to(weight.dtype), dbias.to(weight.dtype)


def refused_by_cuda(inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """Reasons why the CUDA kernel cannot run on x and y (or dy)."""
    for tensor in inputs[:2]:
        if tensor.dtype not in (torch.float32, torch.bfloat16):
            return (f"has no kernel for {tensor.dtype}: use float32 or bfloat16",)
    channels = inputs[0].shape[-1]
    if channels > MAX_CHANNELS or channels % 8:
        return (f"holds rows of a multiple of 8 up to {MAX_CHANNELS} channels, x has {channels}",)
    return ()


def aligned(x: Tensor) -> Tensor:
    """`x` in one piece that starts at a multiple of 16 bytes, for 16-byte loads."""
    x = x.contiguous()
    return x if x.data_ptr() % 16 == 0 else x.clone()


def loses_by_cpp(inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """Why torch is faster on x, y and the widths of a forward pass."""
    if len(inputs) < 3:  # a backward pass
        return ()
    x, _, widths = inputs
    if x.dtype != torch.float32 or not nothing_masked(x, widths):
        return ()
    return ("torch is no slower in float32 where nothing is masked",)


def _outputs(x: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x in one piece, and y, mean, rstd for it."""
    x = x.contiguous()
    # torch.empty costs a third of x.new_empty.
    mean = torch.empty(x.shape[:-1], dtype=statistics_dtype(x), device=x.device)
    return x, torch.empty_like(x, dtype=dtype), mean, torch.empty_like(mean)


def _sizes(x: Tensor, widths: Tensor) -> Any:
    """Rows, channels and groups."""
    return x.shape[:-1].numel(), x.shape[-1], widths.numel()
