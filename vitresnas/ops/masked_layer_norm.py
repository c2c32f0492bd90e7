"""Layer normalisation over the first channels of each group of images.

    y[r, c] = (x[r, c] - mean[r]) * rstd[r] * weight[c] + bias[c]    for c < widths[g], else 0

with, for a row r of group g and sums over c < widths[g] =: w,

    mean[r] = sum(x[r, c]) / w        rstd[r] = (sum((x[r, c] - mean[r])**2) / w + eps)**-0.5

and, with xhat = (x - mean) * rstd and d = dy * weight, where a residual stream passes on beside y:

    dx[r, c] = rstd[r] * (d[r, c] - sum(d[r]) / w - xhat[r, c] * sum(d[r] * xhat[r]) / w)
               + dresidual[r, c]

Layer normalisation is Ba, Kiros and Hinton (arXiv:1607.06450); one width per group of images is how
a ViT-ResNAS super-network runs several sub-networks in one batch (arXiv:2109.00642, section 3.3).

Legend: B images, G groups of B/G consecutive images, R rows of a group (images times tokens),
C channels, P chunks of a group's rows in the backward pass.
Statistics are float32, or float64 for float64 inputs. Inactive inputs may hold anything, NaN too.
Padded: zeros are stored from a width to the next multiple of 16, and nothing behind it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitresnas.errors import InputError
from vitresnas.ops import masked_layer_norm_native as compiled
from vitresnas.ops import masked_layer_norm_reference as plain
from vitresnas.ops import native
from vitresnas.ops.dispatch import Backend, Op, as_given, choose, triton_backend
from vitresnas.ops.masked_layer_norm_reference import statistics_dtype as statistics_dtype

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: Tensor,
    eps: float = 1e-6,
    *,
    dtype: torch.dtype | None = None,
    padded: bool = False,
) -> Tensor:
    """The truth in plain torch, differentiable; arguments as `masked_layer_norm`."""
    return plain.forward(x, weight, bias, widths, eps, dtype, padded)[0]


def _trial(backend: Backend, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(4, 3, 40, generator=generator).to(device) for _ in range(2))
    weight, bias = (torch.randn(40, generator=generator).to(device) for _ in range(2))
    widths = torch.tensor([40, 23], dtype=torch.int32, device=device)
    y, mean, rstd = backend.forward(x, weight, bias, widths, 1e-6)
    return y, *backend.backward(dy, x, mean, rstd, weight, widths)


OP = Op(
    "masked_layer_norm",
    (
        Backend("cuda", compiled.forward_cuda, compiled.backward_cuda, compiled.refused_by_cuda),
        triton_backend("masked_layer_norm"),
        Backend(
            "cpp",
            compiled.forward_cpp,
            compiled.backward_cpp,
            lambda inputs: native.refuses(*inputs[:2]),
            compiled.loses_by_cpp,
        ),
        Backend("reference", plain.forward, plain.backward),
    ),
    _trial,
)

# Below: flat torch.library ops and an autograd.Function around them, which costs half as much per
# call as custom_op with register_autograd.
_library = torch.library.Library("vitresnas", "FRAGMENT")
_library.define(
    "masked_layer_norm(Tensor x, Tensor weight, Tensor bias, Tensor widths, float eps,"
    " ScalarType? dtype=None, bool padded=False) -> (Tensor y, Tensor mean, Tensor rstd)"
)
_library.define(
    "masked_layer_norm_backward(Tensor dy, Tensor x, Tensor mean, Tensor rstd, Tensor weight,"
    " Tensor widths, Tensor? residual=None, Tensor? skip_widths=None, bool padded=False)"
    " -> (Tensor dx, Tensor dweight, Tensor dbias)"
)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: Tensor,
    eps: float,
    dtype: torch.dtype | None = None,
    padded: bool = False,
) -> Any:
    if widths.is_cpu:  # reading a GPU's widths would wait for it; kernels clamp them instead
        _check_widths(x, widths)
    same = dtype is None or dtype == x.dtype
    like_y = x if same else x.new_empty(0, dtype=dtype)
    return choose(OP, (x, like_y, widths)).forward(x, weight, bias, widths, eps, dtype, padded)


def _backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    widths: Tensor,
    residual: Tensor | None = None,
    skip_widths: Tensor | None = None,
    padded: bool = False,
) -> Any:
    saved = (mean, rstd, weight, widths, residual, skip_widths, padded)
    return choose(OP, (x, dy)).backward(dy, x, *saved)


for _key in ("CPU", "CUDA"):
    _library.impl("masked_layer_norm", as_given(_forward), _key)
    _library.impl("masked_layer_norm_backward", as_given(_backward), _key)


@torch.library.register_fake("vitresnas::masked_layer_norm", lib=_library)
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: Tensor,
    eps: float,
    dtype: torch.dtype | None = None,
    padded: bool = False,
) -> Any:
    rows = x.new_empty(x.shape[:-1], dtype=statistics_dtype(x))
    return x.new_empty(x.shape, dtype=dtype or x.dtype), rows, torch.empty_like(rows)


@torch.library.register_fake("vitresnas::masked_layer_norm_backward", lib=_library)
def _(dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, *rest: Any) -> Any:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


class _MaskedLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        widths: Tensor,
        eps: float,
        dtype: torch.dtype,
        padded: bool,
    ) -> Any:
        y, mean, rstd = torch.ops.vitresnas.masked_layer_norm(
            x, weight, bias, widths, eps, dtype, padded
        )
        ctx.save_for_backward(x, mean, rstd, weight, widths)
        ctx.padded = padded
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        gradients = torch.ops.vitresnas.masked_layer_norm_backward(
            dy, *ctx.saved_tensors, None, None, ctx.padded
        )
        return *gradients, None, None, None, None


class _MaskedLayerNormResidual(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        widths: Tensor,
        skip_widths: Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> Any:
        y, mean, rstd = torch.ops.vitresnas.masked_layer_norm(
            x, weight, bias, widths, eps, dtype, True
        )
        ctx.save_for_backward(x, mean, rstd, weight, widths, skip_widths)
        return y, x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dresidual: Tensor) -> Any:
        x, mean, rstd, weight, widths, skip_widths = ctx.saved_tensors
        gradients = torch.ops.vitresnas.masked_layer_norm_backward(
            dy,
            x,
            mean,
            rstd,
            weight,
            widths,
            dresidual,
            widths if skip_widths is None else skip_widths,
            True,
        )
        return *gradients, None, None, None, None


def masked_layer_norm_residual(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: Tensor,
    skip_widths: Tensor,
    eps: float = 1e-6,
    *,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """`masked_layer_norm`, padded, and x again for the residual stream that passes beside it.

    Arguments:
        widths: as there; 0 where the block is skipped: y is then unspecified and its gradient
            unread.
        skip_widths: (G,), int32, like widths and at least as large: the columns of x that count in
            the residual stream, and whose gradient passes.

    Returns: y, and a view of x whose gradient is added where dx is stored, instead of in a pass of
    its own over memory.
    """
    dtype = _check(x, weight, bias, widths, skip_widths, dtype)
    if widths.is_cpu and not torch.compiler.is_compiling():
        _check_widths(x, widths, skip_widths)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        skips = None if skip_widths is widths else skip_widths  # no tensor twice: torch.compile
        y, again = _MaskedLayerNormResidual.apply(x, weight, bias, widths, skips, eps, dtype)
        return y, again
    y, _, _ = torch.ops.vitresnas.masked_layer_norm(x, weight, bias, widths, eps, dtype, True)
    return y, x


def masked_layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: Tensor,
    eps: float = 1e-6,
    *,
    dtype: torch.dtype | None = None,
    padded: bool = False,
) -> Tensor:
    """Normalise each row of `x` over the first channels of its group; the rest becomes zero.

    Arguments:
        x: (B, ..., C), float32, float64, bfloat16 or float16; group g is the images
            [g * B/G, (g + 1) * B/G), and only its first widths[g] channels are read.
        weight, bias: (C,), both of x's dtype, or both float32 beside a half-precision x.
        widths: (G,), int32, on x's device, from 0 to C each; G divides B.
        eps: added to the variance.
        dtype: of the result, by default x's.
        padded: zeros reach to the next multiple of 16 only, in the result and in x's gradient;
            what lies behind is unspecified. The next variable-width op asks for no more.

    Returns: (B, ..., C). Gradients are full-size, and exactly zero in the columns of weight and
    bias that no group reaches.
    """
    dtype = _check(x, weight, bias, widths, None, dtype)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        y: Tensor = _MaskedLayerNorm.apply(x, weight, bias, widths, eps, dtype, padded)
        return y
    y, _, _ = torch.ops.vitresnas.masked_layer_norm(x, weight, bias, widths, eps, dtype, padded)
    return y


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: Tensor,
    skip_widths: Tensor | None,
    dtype: torch.dtype | None,
) -> torch.dtype:
    """The dtype of y, or InputError."""
    tensors = {"x": x, "weight": weight, "bias": bias, "widths": widths}
    if skip_widths is not None:
        tensors["skip_widths"] = skip_widths
    stats = statistics_dtype(x)
    kinds = [kind for kind in FLOATS if (kind == torch.float64) == (stats == torch.float64)]
    dtype = dtype or x.dtype
    if x.dtype not in FLOATS or x.dim() < 2 or x.shape[-1] == 0:
        problem = "x must be (B, ..., C) of a floating type with C > 0"
    elif dtype not in kinds:
        problem = f"dtype {dtype} must be {' or '.join(map(str, kinds))} beside such an x"
    elif weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        problem = f"weight and bias must have shape ({x.shape[-1]},), one value per channel of x"
    elif weight.dtype != bias.dtype or weight.dtype not in (x.dtype, stats):
        problem = f"weight and bias must both be {x.dtype} or both {stats}"
    elif widths.dim() != 1 or widths.dtype != torch.int32 or not widths.is_contiguous():
        problem = "widths must be a contiguous one-dimensional int32 tensor, one width per group"
    elif widths.shape[0] == 0 or x.shape[0] % widths.shape[0]:
        problem = "the number of widths must divide the batch: one width per equal group of images"
    elif skip_widths is not None and (
        skip_widths.shape != widths.shape
        or skip_widths.dtype != torch.int32
        or not skip_widths.is_contiguous()
    ):
        problem = "skip_widths must be a contiguous int32 tensor of as many widths as widths"
    elif any(t.device != x.device for t in tensors.values()):
        problem = "all tensors must be on one device"
    else:
        return dtype
    given = ", ".join(
        f"{name} {tuple(t.shape)} {t.dtype} {t.device}" for name, t in tensors.items()
    )
    raise InputError(f"masked_layer_norm: {problem}; got {given}")


def _check_widths(x: Tensor, widths: Tensor, skip_widths: Tensor | None = None) -> None:
    channels = x.shape[-1]
    for width in widths.tolist():
        if not 0 <= width <= channels:
            raise InputError(
                f"masked_layer_norm: width {width} does not lie within the {channels} "
                f"channels of x {tuple(x.shape)}: give widths from 0 to {channels}"
            )
    if skip_widths is None:
        return
    for width, skip in zip(widths.tolist(), skip_widths.tolist(), strict=True):
        if not width <= skip <= channels:
            raise InputError(
                f"masked_layer_norm_residual: skip width {skip} does not lie between the width "
                f"{width} and the {channels} channels of x {tuple(x.shape)}: give one that does"
            )
