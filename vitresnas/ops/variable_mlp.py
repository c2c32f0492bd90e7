"""The MLP of a transformer block under many widths, with its residual.

    y = residual + scale[image] * (weight2 gelu(weight1 x + bias1) + bias2)

over the first widths_in[g] columns of x, residual and y and the first widths_hidden[g] hidden ones.
Two calls of the op of variable_linear.py each way: the GELU rides on the first forward, the
residual on the second, the GELU's derivative on the second's gradient of its input. Legend and
memory rules are that op's. A group with widths_hidden 0 is skipped: y is its residual.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitresnas.ops.variable_linear import check
from vitresnas.ops.variable_linear_cpu import operand
from vitresnas.ops.variable_linear_reference import reference as linear_reference


def reference(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    widths_in: Tensor,
    widths_hidden: Tensor,
    residual: Tensor,
    scale: Tensor | None = None,
) -> Tensor:
    """The truth in plain torch, differentiable; arguments as `variable_mlp`."""
    hidden = linear_reference(x, weight1, bias1, widths_in, widths_hidden, gelu=True)
    return linear_reference(
        hidden, weight2, bias2, widths_hidden, widths_in,
        residual=residual, scale=scale, dtype=residual.dtype,
    )  # fmt: skip


class _VariableMlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        widths_in: Tensor,
        widths_hidden: Tensor,
        residual: Tensor,
        scale: Tensor | None,
    ) -> Any:
        weights = operand(weight1, x), operand(weight2, x)
        y, hidden, pre = _forward(
            x, weights, (bias1, bias2), widths_in, widths_hidden, residual, scale, keep=True
        )
        ctx.save_for_backward(x, hidden, pre, *weights, widths_in, widths_hidden, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, hidden, pre, weight1, weight2, widths_in, widths_hidden, scale = ctx.saved_tensors
        backward = torch.ops.vitresnas.variable_linear_backward
        dpre, dweight2, dbias2 = backward(
            dy, hidden, weight2, widths_hidden, widths_in, 1, pre, scale
        )
        dx, dweight1, dbias1 = backward(dpre, x, weight1, widths_in, widths_hidden, 1, None, None)
        dresidual = dy if ctx.needs_input_grad[7] else None
        return dx, dweight1, dbias1, dweight2, dbias2, None, None, dresidual, None


def _forward(
    x: Tensor,
    weights: tuple[Tensor, Tensor],
    biases: tuple[Tensor, Tensor],
    widths_in: Tensor,
    widths_hidden: Tensor,
    residual: Tensor,
    scale: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    op = torch.ops.vitresnas.variable_linear
    first = (x, weights[0], biases[0], widths_in, widths_hidden)
    hidden, pre = op(*first, 1, True, keep, None, None, x.dtype)
    second = (hidden, weights[1], biases[1], widths_hidden, widths_in)
    y, _ = op(*second, 1, False, False, residual, scale, residual.dtype)
    return y, hidden, pre


def variable_mlp(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    widths_in: Tensor,
    widths_hidden: Tensor,
    residual: Tensor,
    scale: Tensor | None = None,
) -> Tensor:
    """residual + scale * MLP(x), every group at its own widths.

    Arguments:
        x: (B, ..., C), float32, float64, bfloat16 or float16.
        weight1, bias1: (H, C), (H,); weight2, bias2: (C, H), (C,); types as variable_linear.
        widths_in: (G,) int32, of x, residual and y; widths_hidden: (G,) int32, 0 to skip a group.
        residual: (B, ..., C), x's dtype or float32; its dtype is the result's.
        scale: (B,) float32 (float64 for a float64 x), one factor per image; None stands for ones.

    Returns: (B, ..., C).
    """
    fc1 = (x, weight1, bias1, widths_in, widths_hidden)
    check("variable_mlp (first layer)", *fc1, dtype=x.dtype)
    hidden = x.detach()[..., :1].expand(*x.shape[:-1], weight1.shape[0])  # its shape, no memory
    fc2 = (hidden, weight2, bias2, widths_hidden, widths_in)
    check("variable_mlp (second layer)", *fc2, dtype=residual.dtype, residual=residual, scale=scale)
    leaves = (x, weight1, bias1, weight2, bias2, residual)
    if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves):
        y: Tensor = _VariableMlp.apply(
            x, weight1, bias1, weight2, bias2, widths_in, widths_hidden, residual, scale
        )
        return y
    weights = operand(weight1, x), operand(weight2, x)
    y, _, _ = _forward(
        x, weights, (bias1, bias2), widths_in, widths_hidden, residual, scale, keep=False
    )
    return y
