"""Residual spatial reduction of groups of images, each with its own widths: half the grid.

    out[b, P + m, o] = sum over taps t, c < k of y[b, P + s(m, t), c] * W[o, c, t]
                       + bias[o] + position[m, o] + mean of x[b, P + s, o] over m's 2x2 patches
    out[b, p, o]     = sum over c < k of y[b, p, c] * V[o, c] + prefix_bias[o] + x[b, p, o]

for o < n, with k = widths_in[g] and n = widths_out[g] >= k of b's group g, x[..., o] = 0 from k
on, and s(m, t) the input patch that tap t of a 3x3 filter with stride 2 and padding 1 meets
(ViT-ResNAS, arXiv:2109.00642, section 3.2). y is x, normalised. A group of input width 0 is
skipped: its out is zero.

Legend: B images, G groups of B/G consecutive images, P prefix tokens, S patches along a side,
N = P + S*S tokens, C input and K output channels; E images of a group.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitresnas.errors import InputError
from vitresnas.ops import native, variable_reduction_cpu, variable_reduction_reference
from vitresnas.ops.dispatch import Backend, Op, as_given, choose, triton_backend
from vitresnas.ops.masked_layer_norm import FLOATS, statistics_dtype
from vitresnas.ops.variable_reduction_reference import reference

__all__ = ["OP", "reference", "variable_reduction"]


def _trial(backend: Backend, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    x, y, dout = draw(4, 17, 48), draw(4, 17, 48), draw(4, 5, 80)
    weights = draw(80, 48, 3, 3).to(memory_format=torch.channels_last), draw(80, 48)
    widths = [torch.tensor(w, dtype=torch.int32, device=device) for w in ([48, 16], [64, 80])]
    added = draw(80), draw(1, 4, 80), draw(80)
    out = backend.forward(x, y, weights[0], added[0], added[1], weights[1], added[2], *widths, 4, 1)
    dx, dy, *gradients = backend.backward(dout, y, *weights, *widths, 4, 1)
    # Beyond the widths (multiples of 16 here) memory is nobody's.
    kept = [
        t[2 * g : 2 * g + 2, :, : int(w)]
        for t, columns in ((out, widths[1]), (dx, widths[0]), (dy, widths[0]))
        for g, w in enumerate(columns)
    ]
    return *kept, *gradients


OP = Op(
    "variable_reduction",
    (
        triton_backend("variable_reduction"),
        Backend(
            "cpp",
            variable_reduction_cpu.forward,
            variable_reduction_cpu.backward,
            lambda inputs: native.refuses(*inputs[:2]),
        ),
        Backend(
            "reference",
            variable_reduction_reference.forward,
            variable_reduction_reference.backward,
        ),
    ),
    _trial,
)

_library = torch.library.Library("vitresnas", "FRAGMENT")
_library.define(
    "variable_reduction(Tensor x, Tensor y, Tensor convolution_weight, Tensor convolution_bias,"
    " Tensor position_embedding, Tensor prefix_weight, Tensor prefix_bias, Tensor widths_in,"
    " Tensor widths_out, int grid, int prefix) -> Tensor"
)
_library.define(
    "variable_reduction_backward(Tensor dout, Tensor y, Tensor convolution_weight,"
    " Tensor prefix_weight, Tensor widths_in, Tensor widths_out, int grid, int prefix)"
    " -> (Tensor dx, Tensor dy, Tensor dconvolution_weight, Tensor dconvolution_bias,"
    " Tensor dposition_embedding, Tensor dprefix_weight, Tensor dprefix_bias)"
)


def _forward(x: Tensor, y: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    widths_in, widths_out = rest[-4:-2]
    if widths_in.is_cpu:  # reading a GPU's widths would wait for it; kernels clamp them instead
        for k, n in zip(widths_in.tolist(), widths_out.tolist(), strict=True):
            if not (0 <= k <= weight.shape[1] and k <= n <= weight.shape[0]):
                raise InputError(
                    f"variable_reduction: widths {k} in and {n} out do not fit the "
                    f"{weight.shape[1]} input and {weight.shape[0]} output channels: give widths "
                    "within them, and no fewer columns out than in"
                )
    out: Tensor = choose(OP, (x, y)).forward(x, y, weight, *rest)
    return out


def _backward(dout: Tensor, y: Tensor, *rest: Any) -> Any:
    return choose(OP, (dout, y)).backward(dout, y, *rest)


for _key in ("CPU", "CUDA"):
    _library.impl("variable_reduction", as_given(_forward), _key)
    _library.impl("variable_reduction_backward", as_given(_backward), _key)


@torch.library.register_fake("vitresnas::variable_reduction", lib=_library)
def _(x: Tensor, y: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    grid, prefix = rest[-2:]
    return x.new_empty(x.shape[0], prefix + grid * grid // 4, weight.shape[0])


@torch.library.register_fake("vitresnas::variable_reduction_backward", lib=_library)
def _(
    dout: Tensor,
    y: Tensor,
    convolution_weight: Tensor,
    prefix_weight: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    grid: int,
    prefix: int,
) -> Any:
    outputs, channels = prefix_weight.shape

    def parameter(*shape: int) -> Tensor:
        return y.new_empty(shape, dtype=statistics_dtype(y))

    return (
        dout.new_empty(y.shape),
        y.new_empty(y.shape),
        parameter(outputs, 3, 3, channels).permute(0, 3, 1, 2),
        parameter(outputs),
        parameter(1, grid * grid // 4, outputs),
        parameter(outputs, channels),
        parameter(outputs),
    )


class _VariableReduction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        convolution_weight: Tensor,
        convolution_bias: Tensor,
        position_embedding: Tensor,
        prefix_weight: Tensor,
        prefix_bias: Tensor,
        widths_in: Tensor,
        widths_out: Tensor,
        grid: int,
        prefix: int,
    ) -> Any:
        # Once per call: every tap of channels_last memory is a matrix with unit stride over C.
        weight = convolution_weight.to(y.dtype, memory_format=torch.channels_last)
        prefix_weight = prefix_weight.to(y.dtype)
        ctx.save_for_backward(y, weight, prefix_weight, widths_in, widths_out)
        ctx.sizes = grid, prefix
        return torch.ops.vitresnas.variable_reduction(
            x, y, weight, convolution_bias, position_embedding, prefix_weight, prefix_bias,
            widths_in, widths_out, grid, prefix,
        )  # fmt: skip

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> Any:
        gradients = torch.ops.vitresnas.variable_reduction_backward(
            dout, *ctx.saved_tensors, *ctx.sizes
        )
        return *gradients, None, None, None, None


def variable_reduction(
    x: Tensor,
    y: Tensor,
    convolution_weight: Tensor,
    convolution_bias: Tensor,
    position_embedding: Tensor,
    prefix_weight: Tensor,
    prefix_bias: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    *,
    grid: int,
    prefix: int,
) -> Tensor:
    """Halve the grid of patches of `y` by a convolution, and add what `x` was.

    Arguments:
        x: (B, P + S*S, C), the residual stream, in y's dtype, or float32 beside a half-precision y.
        y: (B, P + S*S, C), x normalised; group g is the images [g * B/G, (g + 1) * B/G), of which
            the first widths_in[g] columns count, in x and in y; zero to the next multiple of 16.
        convolution_weight: (K, C, 3, 3), in any memory format, channels_last without a copy.
        convolution_bias, prefix_bias: (K,). position_embedding: (1, S*S/4, K).
        prefix_weight: (K, C). All parameters may be float32 beside a half-precision y.
        widths_in, widths_out: (G,), int32, on x's device, widths_in[g] <= widths_out[g]; G divides
            B. A group of width 0 in is skipped.
        grid, prefix: S (even) and P.

    Returns: (B, P + S*S/4, K) in x's dtype, zero from widths_out[g] to the next multiple of 16,
    unspecified beyond. Gradients of parameters are full-size and exactly zero where no group
    reaches; they are float32, or float64 for float64 tensors, until autograd hands them on.
    """
    arguments = (
        x, y, convolution_weight, convolution_bias, position_embedding, prefix_weight, prefix_bias,
        widths_in, widths_out,
    )  # fmt: skip
    _check(*arguments, grid, prefix)
    out: Tensor = _VariableReduction.apply(*arguments, grid, prefix)
    return out


def _check(
    x: Tensor,
    y: Tensor,
    convolution_weight: Tensor,
    convolution_bias: Tensor,
    position_embedding: Tensor,
    prefix_weight: Tensor,
    prefix_bias: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    grid: int,
    prefix: int,
) -> None:
    parameters = {
        "convolution_weight": convolution_weight,
        "convolution_bias": convolution_bias,
        "position_embedding": position_embedding,
        "prefix_weight": prefix_weight,
        "prefix_bias": prefix_bias,
    }
    widths = {"widths_in": widths_in, "widths_out": widths_out}
    outputs = convolution_weight.shape[0] if convolution_weight.dim() else 0
    channels = x.shape[-1] if x.dim() else 0
    shapes = (
        (outputs, channels, 3, 3),
        (outputs,),
        (1, grid * grid // 4, outputs),
        (outputs, channels),
        (outputs,),
    )
    wrong = [
        f"{name} must have shape {shape}"
        for (name, tensor), shape in zip(parameters.items(), shapes, strict=True)
        if tensor.shape != shape
    ]
    devices = {t.device for t in (x, y, *parameters.values(), *widths.values())}
    if grid < 2 or grid % 2 or prefix < 0:
        problem = f"grid {grid} must be even and prefix {prefix} not negative"
    elif y.dtype not in FLOATS or x.dim() != 3 or x.shape[1] != prefix + grid * grid:
        problem = f"x must be (B, {prefix} + {grid}*{grid}, C) and y of a floating type"
    elif y.shape != x.shape or x.dtype not in (y.dtype, statistics_dtype(y)):
        problem = f"y must have x's shape, and x be {y.dtype} or {statistics_dtype(y)}"
    elif not channels or not outputs or wrong:
        problem = wrong[0] if wrong else "there must be channels in and out"
    elif any(t.dtype not in (y.dtype, statistics_dtype(y)) for t in parameters.values()):
        problem = f"parameters must be {y.dtype} or {statistics_dtype(y)}"
    elif any(t.dim() != 1 or t.dtype != torch.int32 for t in widths.values()):
        problem = "widths must be one-dimensional int32 tensors, one width per group"
    elif widths_in.shape != widths_out.shape or not len(widths_in) or len(x) % len(widths_in):
        problem = "there must be as many widths in as out, and their number must divide the batch"
    elif len(devices) > 1:
        problem = "all tensors must be on one device"
    else:
        return
    given = ", ".join(
        f"{name} {tuple(t.shape)} {t.dtype} {t.device}"
        for name, t in {"x": x, "y": y, **parameters, **widths}.items()
    )
    raise InputError(f"variable_reduction: {problem}; got {given}")
