"""Masked layer normalisation in plain torch: the truth that every kernel is held to.

Formula and legend are in masked_layer_norm.py. What is unspecified there is zero here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: Tensor,
    eps: float,
    dtype: torch.dtype | None = None,
    padded: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, ..., C), mean and rstd (B, ...); differentiable."""
    if nothing_masked(x, widths):
        return _unmasked(x, weight, bias, eps, dtype)
    active_G1C, count_G11 = _active(widths, x.shape[-1])
    x_GRC = _by_group(x, active_G1C)
    weight_G1C = torch.where(active_G1C, weight.to(x_GRC.dtype), 0)
    bias_G1C = torch.where(active_G1C, bias.to(x_GRC.dtype), 0)

    mean_GR1 = x_GRC.sum(-1, keepdim=True) / count_G11
    centred_GRC = torch.where(active_G1C, x_GRC - mean_GR1, 0)
    variance_GR1 = centred_GRC.square().sum(-1, keepdim=True) / count_G11
    rstd_GR1 = (variance_GR1 + eps).rsqrt()
    y_GRC = centred_GRC * rstd_GR1 * weight_G1C + bias_G1C

    rows = x.shape[:-1]
    y = y_GRC.to(dtype or x.dtype).reshape(x.shape)
    return y, mean_GR1.reshape(rows), rstd_GR1.reshape(rows)


def backward(
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
    """dx (B, ..., C) with the residual's gradient in it, dweight and dbias (C,)."""
    active_G1C, count_G11 = _active(widths, x.shape[-1])
    x_GRC, dy_GRC = _by_group(x, active_G1C), _by_group(dy, active_G1C)
    weight_G1C = torch.where(active_G1C, weight.to(x_GRC.dtype), 0)
    rstd_GR1 = rstd.reshape(*x_GRC.shape[:2], 1)
    xhat_GRC = torch.where(active_G1C, (x_GRC - mean.reshape(rstd_GR1.shape)) * rstd_GR1, 0)

    scaled_GRC = dy_GRC * weight_G1C
    m1_GR1 = scaled_GRC.sum(-1, keepdim=True) / count_G11
    m2_GR1 = (scaled_GRC * xhat_GRC).sum(-1, keepdim=True) / count_G11
    dx_GRC = torch.where(active_G1C, rstd_GR1 * (scaled_GRC - m1_GR1 - xhat_GRC * m2_GR1), 0)
    if residual is not None and skip_widths is not None:
        dx_GRC = dx_GRC + _by_group(residual, _active(skip_widths, x.shape[-1])[0])
    dweight_C = (dy_GRC * xhat_GRC).sum((0, 1))
    dbias_C = dy_GRC.sum((0, 1))
    return (
        dx_GRC.to(x.dtype).reshape(x.shape),
        dweight_C.to(weight.dtype),
        dbias_C.to(weight.dtype),
    )


def nothing_masked(x: Tensor, widths: Tensor) -> bool:
    """Whether every group has all channels, as far as the CPU can tell without waiting."""
    return widths.is_cpu and all(width == x.shape[-1] for width in widths.tolist())


def _unmasked(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The same where no mask is needed, by torch's own kernel."""
    kind, rows, dtype = statistics_dtype(x), x.shape[:-1], dtype or x.dtype
    if dtype != x.dtype:  # rounded once, at the end
        x = x.to(kind)
    y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], weight.to(kind), bias.to(kind), eps)
    return y.to(dtype), mean.reshape(rows), rstd.reshape(rows)


def statistics_dtype(x: Tensor) -> torch.dtype:
    """The type in which sums over channels run."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _by_group(x: Tensor, active_G1C: Tensor) -> Tensor:
    """(B, ..., C) as (G, R, C) in the statistics type, zero where inactive."""
    groups = active_G1C.shape[0]
    x_GRC = x.reshape(groups, x.shape[:-1].numel() // groups, x.shape[-1])
    # where, not a product: 0 * NaN would let inactive memory through.
    return torch.where(active_G1C, x_GRC, 0).to(statistics_dtype(x))


def _active(widths: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """The mask (G, 1, C) and the number of active channels (G, 1, 1), at least 1."""
    columns = torch.arange(channels, device=widths.device)
    return (columns < widths[:, None])[:, None], widths.clamp(1)[:, None, None]
