"""Attention of the first heads in CUDA C++: arguments and launches; kernels in csrc/cuda.

Sizes are compiled in: tokens (a class token and a square of patches) and head dimensions. The
mathematics is in vitresnas/ops/variable_attention.py.

Legend: B images, G groups of B/G images, T tokens, H heads of the storage, D head dimension.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from vitresnas.ops import native
from vitresnas.ops import variable_attention_reference as plain

SIZES = {17: (32, 48, 64), 65: (32, 48, 64), 257: (32,)}
"""Head dimensions by tokens. Larger heads of 257 tokens would spill registers going backward."""

DTYPES = {torch.bfloat16: 2, torch.float16: 3}
"""Storage types as csrc/status.h numbers them."""


def refuses(inputs: Any) -> tuple[str, ...]:
    """Reasons why qkv (B, T, 3, H, D), the first of `inputs`, cannot be handled here."""
    qkv = inputs[0]
    tokens, head_dim = qkv.shape[1], qkv.shape[-1]
    if qkv.dtype not in DTYPES:
        return (f"has no kernel for {qkv.dtype}: use bfloat16 or float16",)
    if head_dim not in SIZES.get(tokens, ()):
        known = ", ".join(f"{t} with D of {d}" for t, ds in SIZES.items() for d in ds)
        return (f"is compiled for tokens {known}: qkv has {tokens} with D of {head_dim}",)
    return ()


def forward(qkv: Tensor, heads: Tensor, head_dim: int, scale: float) -> tuple[Tensor, Tensor]:
    """out (B, T, H*D) and lse (B, H, T) of qkv (B, T, 3*H*D)."""
    if scale <= 0:  # the kernel's largest score would be the smallest
        return plain.forward(qkv, heads, head_dim, scale)
    qkv, heads = _aligned(qkv), heads.contiguous()
    batch, tokens, columns = qkv.shape
    out = qkv.new_empty(batch, tokens, columns // 3)
    lse = qkv.new_empty(batch, columns // (3 * head_dim), tokens, dtype=torch.float32)
    with torch.cuda.device_of(qkv):
        _prepare(qkv.get_device())
        code = native.module().variable_attention_cuda_forward(
            DTYPES[qkv.dtype],
            *(t.data_ptr() for t in (qkv, heads, out, lse)),
            *_sizes(qkv, heads, head_dim, scale),
        )
    native.check(code, "variable_attention", qkv=qkv, heads=heads)
    return out, lse


def backward(
    dout: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, heads: Tensor, head_dim: int, scale: float
) -> Tensor:
    """dqkv (B, T, 3*H*D); heads that are not live are not written."""
    dout, qkv, out, heads = _aligned(dout), _aligned(qkv), _aligned(out), heads.contiguous()
    dqkv = torch.empty_like(qkv)
    with torch.cuda.device_of(qkv):
        _prepare(qkv.get_device())
        code = native.module().variable_attention_cuda_backward(
            DTYPES[qkv.dtype],
            *(t.data_ptr() for t in (dout, qkv, out, lse.contiguous(), heads, dqkv)),
            *_sizes(qkv, heads, head_dim, scale),
        )
    native.check(code, "variable_attention_backward", qkv=qkv, heads=heads)
    return dqkv


def _sizes(qkv: Tensor, heads: Tensor, head_dim: int, scale: float) -> tuple[Any, ...]:
    """What both directions end with."""
    batch, tokens, columns = qkv.shape
    stream = native.stream(qkv)
    return batch, heads.numel(), tokens, columns // (3 * head_dim), head_dim, scale, stream


def _aligned(tensor: Tensor) -> Tensor:
    """Contiguous, from an address that 16-byte copies can start at."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


@functools.cache
def _prepare(device: int) -> None:
    """Loads the kernels and raises their shared memory limit, once per device.

    A step before a CUDA graph's capture has done it.
    """
    native.check(native.module().variable_attention_cuda_prepare(), "variable_attention")
