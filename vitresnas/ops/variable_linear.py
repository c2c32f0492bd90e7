"""One linear layer under many widths: a group uses the first rows and columns of the weight.

    y[r, c] = sum(x[r, i] * weight[c, i] for i < k) + bias[c]    for c < n

with k = widths_in[g] and n = widths_out[g] of the row's group g. With `segments` the rows of the
weight and the columns of y are that many equal parts (q, k and v), and n counts within each.
What may follow in the same pass: an exact GELU, or residual + scale[image] * y.

    dx = scale * dy W  (times gelu'(pre) in an MLP)    dweight = sum over g of (scale * dy)^T x

Columns of y and dx from their width to the next multiple of 16 are zero, what lies beyond is
unspecified; inputs are read by the same rule. A group with k = 0 is skipped: nothing is computed
(a residual is copied), and no parameter gets a gradient from it. Gradients of weight and bias are
full-size float32 (float64 for float64), exactly zero where no group reaches.

Legend: B images, G groups of B/G consecutive images, R rows (images times tokens), K inputs,
N outputs, k and n the active ones of a group, S segments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitresnas.errors import InputError
from vitresnas.ops import native
from vitresnas.ops import variable_linear_cpu as cpu
from vitresnas.ops import variable_linear_reference as plain
from vitresnas.ops.dispatch import Backend, Op, as_given, choose, triton_backend
from vitresnas.ops.variable_linear_reference import accumulator, reference

__all__ = ["OP", "reference", "variable_linear", "variable_linear_residual"]

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _trial(backend: Backend, device: torch.device) -> tuple[Tensor, ...]:
    """A residual layer forward and backward, an MLP's first half, and a classifier, whose width no
    kernel can be promised anything of; no column is unspecified."""
    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(4, 5, 32, generator=generator).to(device) for _ in range(2))
    weight = torch.randn(32, 32, generator=generator).to(device)
    bias, scale = (torch.rand(n, generator=generator).to(device) for n in (32, 4))
    widths = torch.tensor([32, 17], dtype=torch.int32, device=device)
    flags = (1, False, False, x, scale, x.dtype)
    y, _ = backend.forward(x, weight, bias, widths, widths, *flags)
    h, pre = backend.forward(x, weight, bias, widths, widths, 1, True, True, None, None, x.dtype)
    narrow, logits_wide = (torch.full((2,), n, dtype=torch.int32, device=device) for n in (24, 10))
    head = x[..., :24], weight[:10, :24], bias[:10], narrow, logits_wide
    logits, _ = backend.forward(*head, 1, False, False, None, None, x.dtype)
    back = dy[..., :10], head[0], head[1], narrow, logits_wide
    return (
        *(y, h, logits),
        *backend.backward(dy, x, weight, widths, widths, 1, pre, scale),
        *backend.backward(*back, 1, None, None),
    )


OP = Op(
    "variable_linear",
    (
        triton_backend("variable_linear"),
        Backend("cpp", cpu.forward, cpu.backward, lambda inputs: native.refuses(inputs[0])),
        Backend("reference", plain.forward, plain.backward),
    ),
    _trial,
)

_library = torch.library.Library("vitresnas", "FRAGMENT")
_library.define(
    "variable_linear(Tensor x, Tensor weight, Tensor bias, Tensor widths_in, Tensor widths_out,"
    " int segments, bool gelu, bool keep, Tensor? residual, Tensor? scale, ScalarType dtype)"
    " -> (Tensor y, Tensor pre)"
)
_library.define(
    "variable_linear_backward(Tensor dy, Tensor x, Tensor weight, Tensor widths_in,"
    " Tensor widths_out, int segments, Tensor? pre, Tensor? scale)"
    " -> (Tensor dx, Tensor dweight, Tensor dbias)"
)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    segments: int,
    *rest: Any,
) -> Any:
    if widths_in.is_cpu:  # reading a GPU's widths would wait for it; kernels clamp them instead
        outputs, inputs = weight.shape
        for name, widths, room in (
            ("widths_in", widths_in, inputs),
            ("widths_out", widths_out, outputs // segments),
        ):
            for width in widths.tolist():
                if not 0 <= width <= room:
                    raise InputError(
                        f"variable_linear: {name} {width} does not lie within the {room} columns "
                        f"there are (weight {tuple(weight.shape)}, segments {segments}): "
                        f"give widths from 0 to {room}"
                    )
    backend = choose(OP, (x,))
    return backend.forward(x, weight, bias, widths_in, widths_out, segments, *rest)


def _backward(dy: Tensor, x: Tensor, *rest: Any) -> Any:
    return choose(OP, (x,)).backward(dy, x, *rest)


for _key in ("CPU", "CUDA"):
    _library.impl("variable_linear", as_given(_forward), _key)
    _library.impl("variable_linear_backward", as_given(_backward), _key)


@torch.library.register_fake("vitresnas::variable_linear", lib=_library)
def _(
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
) -> Any:
    shape = (*x.shape[:-1], weight.shape[0])
    return x.new_empty(shape, dtype=dtype), x.new_empty(shape if gelu and keep else 0)


@torch.library.register_fake("vitresnas::variable_linear_backward", lib=_library)
def _(dy: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> Any:
    sums = accumulator(x.dtype)
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape, dtype=sums),
        weight.new_empty(weight.shape[0], dtype=sums),
    )


class _VariableLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        widths_in: Tensor,
        widths_out: Tensor,
        segments: int,
        residual: Tensor | None,
        scale: Tensor | None,
        dtype: torch.dtype,
    ) -> Any:
        weight = cpu.operand(weight, x)
        y, _ = torch.ops.vitresnas.variable_linear(
            x, weight, bias, widths_in, widths_out, segments, False, False, residual, scale, dtype
        )
        ctx.save_for_backward(x, weight, widths_in, widths_out, scale)
        ctx.segments = segments
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, widths_in, widths_out, scale = ctx.saved_tensors
        dx, dweight, dbias = torch.ops.vitresnas.variable_linear_backward(
            dy, x, weight, widths_in, widths_out, ctx.segments, None, scale
        )
        dresidual = dy if ctx.needs_input_grad[6] else None
        return dx, dweight, dbias, None, None, None, dresidual, None, None


def variable_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    *,
    segments: int = 1,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """x_g[:, :k] @ weight[:n, :k]^T + bias[:n] for every group g.

    Arguments:
        x: (B, ..., K), float32, float64, bfloat16 or float16.
        weight: (N, K) in x's dtype, or float32, then cast once; bias: (N,), float32 or x's dtype
            (float64 for a float64 x).
        widths_in, widths_out: (G,), int32, on x's device; G divides B. k from 0 (skipped) to K,
            n from 0 to N / segments.
        segments: how many equal parts the N outputs are; each group takes the first n of each.
        dtype: y's type, x's (the default) or float32.

    Returns: (B, ..., N); of a skipped group nothing is written.
    """
    dtype = dtype or x.dtype
    check("variable_linear", x, weight, bias, widths_in, widths_out, segments=segments, dtype=dtype)
    return apply(x, weight, bias, widths_in, widths_out, segments, None, None, dtype)


def variable_linear_residual(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    residual: Tensor,
    scale: Tensor | None = None,
) -> Tensor:
    """residual + scale * variable_linear(x, ...), in one pass.

    Arguments, beyond those of variable_linear:
        residual: (B, ..., N), x's dtype or float32; its dtype is the result's.
        scale: (B,) float32 (float64 for a float64 x): one factor per image, as of stochastic
            depth; it gets no gradient. None stands for ones.

    Returns: (B, ..., N); a skipped group (k = 0) is its residual.
    """
    arguments, dtype = (x, weight, bias, widths_in, widths_out), residual.dtype
    check("variable_linear_residual", *arguments, dtype=dtype, residual=residual, scale=scale)
    return apply(*arguments, 1, residual, scale, dtype)


def apply(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    segments: int,
    residual: Tensor | None,
    scale: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """The op on checked arguments, through autograd only where something asks for a gradient."""
    leaves = (x, weight, bias) if residual is None else (x, weight, bias, residual)
    arguments = (x, weight, bias, widths_in, widths_out, segments)
    if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves):
        y: Tensor = _VariableLinear.apply(*arguments, residual, scale, dtype)
        return y
    x, weight, *others = arguments
    y, _ = torch.ops.vitresnas.variable_linear(
        x, cpu.operand(weight, x), *others, False, False, residual, scale, dtype
    )
    return y


def check(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    *,
    segments: int = 1,
    dtype: torch.dtype,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
) -> None:
    """Raise InputError, in one sentence, unless the arguments fit together."""
    tensors = {"x": x, "weight": weight, "bias": bias, "widths_in": widths_in}
    tensors |= {"widths_out": widths_out}
    tensors |= {} if residual is None else {"residual": residual}
    tensors |= {} if scale is None else {"scale": scale}
    sums = accumulator(x.dtype)
    if x.dtype not in FLOATS or x.dim() < 2 or x.shape[-1] == 0:
        problem = "x must be (B, ..., K) of a floating type with K > 0"
    elif weight.dim() != 2 or weight.shape[1] != x.shape[-1] or weight.shape[0] == 0:
        problem = f"weight must have shape (N, {x.shape[-1]}), one column per column of x"
    elif segments < 1 or weight.shape[0] % segments:
        problem = f"segments {segments} must divide the {weight.shape[0]} rows of weight"
    elif bias.shape != weight.shape[:1]:
        problem = f"bias must have shape ({weight.shape[0]},), one value per row of weight"
    elif weight.dtype not in (x.dtype, sums) or bias.dtype not in (x.dtype, sums):
        problem = f"weight and bias must be {x.dtype} or {sums}"
    elif dtype not in (x.dtype, sums):
        problem = f"the result (and residual) must be {x.dtype} or {sums}, not {dtype}"
    elif any(w.dim() != 1 or w.dtype != torch.int32 for w in (widths_in, widths_out)):
        problem = "widths must be one-dimensional int32 tensors, one width per group"
    elif not 0 < len(widths_in) == len(widths_out) or x.shape[0] % len(widths_in):
        problem = "there must be as many widths in as out, and their number must divide the batch"
    elif residual is not None and residual.shape != (*x.shape[:-1], weight.shape[0]):
        problem = f"residual must have shape {(*x.shape[:-1], weight.shape[0])}, as the result"
    elif scale is not None and (scale.shape != x.shape[:1] or scale.dtype != sums):
        problem = f"scale must be ({x.shape[0]},) of {sums}, one factor per image"
    elif any(t.device != x.device for t in tensors.values()):
        problem = "all tensors must be on one device"
    else:
        return
    given = ", ".join(
        f"{name} {tuple(t.shape)} {t.dtype} {t.device}" for name, t in tensors.items()
    )
    raise InputError(f"{op}: {problem}; got {given}")
