"""One linear layer under many widths: group g computes x_g @ W[:n_g, :k_g]^T + b[:n_g].

A plain loop over slices gives every group's slice a full-size gradient of its own and then adds
them up; here all groups write their share into one buffer. No weight is ever copied.

R rows, k inputs, n outputs of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def sliced_linear(
    xs: Sequence[Tensor], linear: nn.Linear, widths: Sequence[int], *, segments: int = 1
) -> list[Tensor]:
    """Apply the first rows and columns of `linear` to each group.

    xs: (..., k_g) per group; widths: outputs n_g per group. `segments`: the rows of the weight are
    that many equal parts (q, k and v), of each of which a group takes its first n_g / segments.
    Under autocast it computes in the autocast type; gradients keep the weight's type.
    """
    device = xs[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else xs[0].dtype
    flat = [x.to(dtype).flatten(0, -2) for x in xs]
    ys = _SlicedLinear.apply(linear.weight, linear.bias, tuple(widths), segments, *flat)
    return [y.view(*x.shape[:-1], y.shape[-1]) for x, y in zip(xs, ys, strict=True)]


class _SlicedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight_NK: Tensor,
        bias_N: Tensor,
        widths: tuple[int, ...],
        segments: int,
        *xs_Rk: Tensor,
    ) -> tuple[Tensor, ...]:
        dtype = xs_Rk[0].dtype
        weight_SNK, bias_SN = _segmented(weight_NK.to(dtype), bias_N.to(dtype), segments)
        ys = []
        for x_Rk, width in zip(xs_Rk, widths, strict=True):
            part, inputs = width // segments, x_Rk.shape[1]
            y_Rn = x_Rk.new_empty(len(x_Rk), width)
            for segment, y_Rp in enumerate(y_Rn.split(part, dim=1)):
                w_pk = weight_SNK[segment, :part, :inputs]
                torch.addmm(bias_SN[segment, :part], x_Rk, w_pk.t(), out=y_Rp)
            ys.append(y_Rn)
        ctx.save_for_backward(weight_SNK, *xs_Rk)
        ctx.gradient_dtype = weight_NK.dtype
        return tuple(ys)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads_Rn: Tensor) -> tuple[Tensor | None, ...]:
        weight_SNK, *xs_Rk = ctx.saved_tensors
        segments, rows, _ = weight_SNK.shape
        dweight_SNK = torch.zeros_like(weight_SNK, dtype=ctx.gradient_dtype)
        dbias_SN = dweight_SNK.new_zeros(segments, rows)
        dxs: list[Tensor | None] = []
        for group, (x_Rk, dy_Rn) in enumerate(zip(xs_Rk, grads_Rn, strict=True)):
            part, inputs = dy_Rn.shape[1] // segments, x_Rk.shape[1]
            dx_Rk = torch.zeros_like(x_Rk) if ctx.needs_input_grad[4 + group] else None
            for segment, dy_Rp in enumerate(dy_Rn.split(part, dim=1)):
                _add_product(dweight_SNK[segment, :part, :inputs], dy_Rp.t(), x_Rk)
                dbias_SN[segment, :part] += dy_Rp.sum(0)
                if dx_Rk is not None:
                    dx_Rk.addmm_(dy_Rp, weight_SNK[segment, :part, :inputs])
            dxs.append(dx_Rk)
        return dweight_SNK.flatten(0, 1), dbias_SN.flatten(), None, None, *dxs


def _segmented(weight_NK: Tensor, bias_N: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    return weight_NK.unflatten(0, (segments, -1)), bias_N.unflatten(0, (segments, -1))


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b in place; half-precision products are added up in the total's precision."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
