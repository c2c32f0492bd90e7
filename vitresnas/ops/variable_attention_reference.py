"""Variable-head attention in plain torch: the truth, and the backend that runs everywhere.

On a CPU the backend calls torch's own attention on each group's slice. Elsewhere it masks instead
of slicing, because reading the number of heads would wait for the GPU.

Legend: B images, T tokens, H most heads of a group, D head dimension, G groups, h live heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor


def statistics_dtype(x: Tensor) -> torch.dtype:
    """The type of scores and their sums."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def reference(qkv: Tensor, heads: Tensor, head_dim: int, *, scale: float | None = None) -> Tensor:
    """The truth, differentiable; arguments as `variable_attention`; inactive heads give zero."""
    scale = head_dim**-0.5 if scale is None else scale
    q_BHTD, k_BHTD, v_BHTD = _masked(qkv, heads, head_dim)
    p_BHTT = torch.softmax(scale * q_BHTD @ k_BHTD.mT, -1)
    return _packed(p_BHTT @ v_BHTD).to(qkv.dtype)


def forward(qkv: Tensor, heads: Tensor, head_dim: int, scale: float) -> tuple[Tensor, Tensor]:
    """out (B, T, H*D) in qkv's type; the log of the sum of exponentials (B, H, T)."""
    if not qkv.is_cpu:
        q_BHTD, k_BHTD, v_BHTD = _masked(qkv, heads, head_dim)
        s_BHTT = scale * q_BHTD @ k_BHTD.mT
        out_BHTD = torch.softmax(s_BHTT, -1) @ v_BHTD
        return _packed(out_BHTD).to(qkv.dtype), torch.logsumexp(s_BHTT, -1)
    batch, tokens, columns = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    out_BTX = qkv.new_empty(batch, tokens, columns)
    lse_BHT = qkv.new_empty(batch, columns // head_dim, tokens, dtype=statistics_dtype(qkv))
    for images, live in _groups(qkv, heads):
        out_bhTD, lse_bhT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *_split(qkv[images], head_dim, live), scale=scale
        )
        _write(out_BTX[images], out_bhTD)
        lse_BHT[images, :live] = lse_bhT
    return out_BTX, lse_BHT


def backward(
    dout: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, heads: Tensor, head_dim: int, scale: float
) -> Tensor:
    """dqkv, like qkv."""
    if not qkv.is_cpu:
        return _backward_masked(dout, qkv, heads, head_dim, scale)
    dqkv = torch.empty_like(qkv)
    for images, live in _groups(qkv, heads):
        q, k, v = _split(qkv[images], head_dim, live)
        (do,), (o,) = (_split(t[images], head_dim, live, parts=1) for t in (dout, out))
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            do, q, k, v, o, lse[images, :live], 0.0, False, scale=scale
        )
        for to, gradient in zip(dqkv[images].chunk(3, -1), gradients, strict=True):
            _write(to, gradient)
    return dqkv


def _backward_masked(
    dout: Tensor, qkv: Tensor, heads: Tensor, head_dim: int, scale: float
) -> Tensor:
    q_BHTD, k_BHTD, v_BHTD = _masked(qkv, heads, head_dim)
    (do_BHTD,) = _masked(dout, heads, head_dim, parts=1)
    p_BHTT = torch.softmax(scale * q_BHTD @ k_BHTD.mT, -1)
    dp_BHTT = do_BHTD @ v_BHTD.mT
    delta_BHT1 = (p_BHTT * dp_BHTT).sum(-1, keepdim=True)
    ds_BHTT = scale * p_BHTT * (dp_BHTT - delta_BHT1)
    gradients = ds_BHTT @ k_BHTD, ds_BHTT.mT @ q_BHTD, p_BHTT.mT @ do_BHTD
    return torch.cat([_packed(t) for t in gradients], -1).to(qkv.dtype)


def _split(x_BTX: Tensor, head_dim: int, live: int, parts: int = 3) -> tuple[Tensor, ...]:
    """The first heads of each part as views (B, h, T, D)."""
    x_BTPHD = x_BTX.unflatten(-1, (parts, -1, head_dim))[:, :, :, :live]
    return x_BTPHD.permute(2, 0, 3, 1, 4).unbind(0)


def _masked(x_BTX: Tensor, heads: Tensor, head_dim: int, parts: int = 3) -> tuple[Tensor, ...]:
    """All heads of each part (B, H, T, D) in the type of the scores, zero where inactive."""
    most = x_BTX.shape[-1] // (parts * head_dim)
    head_B = heads.repeat_interleave(x_BTX.shape[0] // heads.shape[0], output_size=x_BTX.shape[0])
    live_BH11 = (torch.arange(most, device=heads.device) < head_B[:, None])[..., None, None]
    # where, not a product: 0 * NaN would let inactive memory through.
    split = _split(x_BTX, head_dim, most, parts)
    return tuple(torch.where(live_BH11, t, 0).to(statistics_dtype(x_BTX)) for t in split)


def _packed(x_BHTD: Tensor) -> Tensor:
    return x_BHTD.transpose(1, 2).flatten(2)


def _write(to_bTX: Tensor, x_bhTD: Tensor) -> None:
    """Into the first columns, and zeros up to the next 16."""
    width = x_bhTD.shape[1] * x_bhTD.shape[3]
    to_bTX[..., :width] = _packed(x_bhTD)
    to_bTX[..., width : math.ceil(width / 16) * 16] = 0


def _groups(qkv: Tensor, heads: Tensor) -> Iterator[tuple[slice, int]]:
    """The images and the live heads of every group that has some of both."""
    size = qkv.shape[0] // heads.shape[0]
    for group, live in enumerate(heads.tolist()):
        if live and size and qkv.shape[1]:
            yield slice(group * size, (group + 1) * size), live
