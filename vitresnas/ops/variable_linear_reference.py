"""The variable-width linear in plain torch: full-width products of operands zeroed where inactive.

Legend: as variable_linear.py. Widths are never read on the host, so this runs inside a CUDA graph.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type of sums, biases and parameter gradients beside operands of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    *,
    segments: int = 1,
    gelu: bool = False,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The truth, differentiable; arguments as the public functions of variable_linear.py."""
    weight = weight.to(x.dtype)
    flags = (segments, gelu, False, residual, scale, dtype or x.dtype)
    return forward(x, weight, bias, widths_in, widths_out, *flags)[0]


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    segments: int,
    gelu: bool,
    keep: bool,
    residual: Tensor | None,
    scale: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    sums = accumulator(x.dtype)
    x_GRK, weight_NK, runs_G1N = _operands(x, weight, widths_in, widths_out, segments)
    bias_N = torch.where(runs_G1N.any(0)[0], bias.to(sums), 0)
    pre_GRN = torch.where(runs_G1N, (x_GRK @ weight_NK.t()).to(sums) + bias_N, 0)
    y_GRN = F.gelu(pre_GRN) if gelu else pre_GRN
    if residual is not None:
        y_GRN = y_GRN * _per_row(scale, x, len(x_GRK)) if scale is not None else y_GRN
        out_G1N = _active(widths_out, len(weight), segments)
        y_GRN = y_GRN + torch.where(out_G1N, residual.reshape(y_GRN.shape), 0).to(sums)
    shape = (*x.shape[:-1], weight.shape[0])
    pre = pre_GRN.to(x.dtype).reshape(shape) if gelu and keep else x.new_empty(0)
    return y_GRN.to(dtype).reshape(shape), pre


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    segments: int,
    pre: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    sums = accumulator(x.dtype)
    x_GRK, weight_NK, runs_G1N = _operands(x, weight, widths_in, widths_out, segments)
    dy_GRN = torch.where(runs_G1N, dy.reshape(*x_GRK.shape[:2], len(weight)), 0).to(sums)
    if scale is not None:
        dy_GRN = dy_GRN * _per_row(scale, x, len(x_GRK))
    dbias_N = dy_GRN.sum((0, 1))
    dy_GRN = dy_GRN.to(x.dtype)
    dweight_NK = (dy_GRN.flatten(0, 1).t() @ x_GRK.flatten(0, 1)).to(sums)
    dx_GRK = dy_GRN @ weight_NK
    if pre is not None:
        in_G1K = _active(widths_in, x.shape[-1])
        pre_GRK = torch.where(in_G1K, pre.reshape(x_GRK.shape), 0).to(sums)
        dx_GRK = torch.ops.aten.gelu_backward(dx_GRK.to(sums), pre_GRK)
    dx_GRK = torch.where(_active(widths_in, x.shape[-1]), dx_GRK, 0)
    return dx_GRK.to(x.dtype).reshape(x.shape), dweight_NK, dbias_N


def _active(widths: Tensor, columns: int, segments: int = 1) -> Tensor:
    """True in the first widths[g] columns of every segment, (G, 1, columns)."""
    column = torch.arange(columns, device=widths.device) % (columns // segments)
    return (column < widths[:, None])[:, None]


def _operands(
    x: Tensor, weight: Tensor, widths_in: Tensor, widths_out: Tensor, segments: int
) -> tuple[Tensor, Tensor, Tensor]:
    """x by group and the weight, both zero where no group reaches; the mask of computed outputs."""
    groups, (outputs, inputs) = len(widths_in), weight.shape
    weight = weight.to(x.dtype)  # the C++ backend may ask for it unrounded
    in_G1K, out_G1N = _active(widths_in, inputs), _active(widths_out, outputs, segments)
    out_G1N = out_G1N & (widths_in > 0)[:, None, None]
    x_GRK = x.reshape(groups, x.shape[:-1].numel() // groups, inputs)
    # where, not a product: 0 * NaN would let inactive memory through.
    x_GRK = torch.where(in_G1K, x_GRK, 0)
    reached_NK = out_G1N[:, 0].float().t() @ in_G1K[:, 0].float() > 0
    weight_NK = torch.where(reached_NK, weight, 0)
    return x_GRK, weight_NK, out_G1N


def _per_row(scale_B: Tensor, x: Tensor, groups: int) -> Tensor:
    """One factor per image as one per row, (G, R, 1)."""
    rows = x.shape[1:-1].numel()
    return scale_B.repeat_interleave(rows).reshape(groups, -1, 1)
