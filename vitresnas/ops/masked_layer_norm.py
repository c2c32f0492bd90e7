"""Layer normalisation over the first channels of each group of images.

    y[r, c] = (x[r, c] - mean[r]) * rstd[r] * weight[c] + bias[c]    for c < widths[g], else 0

with, for a row r of group g and sums over c < widths[g] =: w,

    mean[r] = sum(x[r, c]) / w        rstd[r] = (sum((x[r, c] - mean[r])**2) / w + eps)**-0.5

Layer normalisation is Ba, Kiros and Hinton (arXiv:1607.06450); one width per group of images is how
a ViT-ResNAS super-network runs several sub-networks in one batch (arXiv:2109.00642, section 3.3).

Legend: B images, G groups of B/G consecutive images, R rows of a group (images times tokens),
C channels, P chunks of a group's rows in the backward pass.
Statistics are float32, or float64 for float64 inputs. Inactive inputs may hold anything, NaN too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitresnas.errors import InputError
from vitresnas.ops import native
from vitresnas.ops.dispatch import Backend, Op, choose

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def reference(x: Tensor, weight: Tensor, bias: Tensor, widths: Tensor, eps: float = 1e-6) -> Tensor:
    """The truth in plain torch, differentiable; arguments as `masked_layer_norm`."""
    return _forward_reference(x, weight, bias, widths, eps)[0]


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


def _forward_reference(
    x: Tensor, weight: Tensor, bias: Tensor, widths: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
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
    return y_GRC.to(x.dtype).reshape(x.shape), mean_GR1.reshape(rows), rstd_GR1.reshape(rows)


def _backward_reference(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, widths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    active_G1C, count_G11 = _active(widths, x.shape[-1])
    x_GRC, dy_GRC = _by_group(x, active_G1C), _by_group(dy, active_G1C)
    weight_G1C = torch.where(active_G1C, weight.to(x_GRC.dtype), 0)
    rstd_GR1 = rstd.reshape(*x_GRC.shape[:2], 1)
    xhat_GRC = torch.where(active_G1C, (x_GRC - mean.reshape(rstd_GR1.shape)) * rstd_GR1, 0)

    scaled_GRC = dy_GRC * weight_G1C
    m1_GR1 = scaled_GRC.sum(-1, keepdim=True) / count_G11
    m2_GR1 = (scaled_GRC * xhat_GRC).sum(-1, keepdim=True) / count_G11
    dx_GRC = torch.where(active_G1C, rstd_GR1 * (scaled_GRC - m1_GR1 - xhat_GRC * m2_GR1), 0)
    dweight_C = (dy_GRC * xhat_GRC).sum((0, 1))
    dbias_C = dy_GRC.sum((0, 1))
    return (
        dx_GRC.to(x.dtype).reshape(x.shape),
        dweight_C.to(weight.dtype),
        dbias_C.to(weight.dtype),
    )


def _forward_cpp(
    x: Tensor, weight: Tensor, bias: Tensor, widths: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    x, widths = x.contiguous(), widths.contiguous()
    stats = statistics_dtype(x)
    weight, bias = weight.to(stats).contiguous(), bias.to(stats).contiguous()
    y = torch.empty_like(x)
    mean = x.new_empty(x.shape[:-1], dtype=stats)
    rstd = torch.empty_like(mean)
    code = native.module().masked_layer_norm_forward(
        native.DTYPES[x.dtype],
        *(t.data_ptr() for t in (x, weight, bias, widths, y, mean, rstd)),
        mean.numel(),
        x.shape[-1],
        widths.numel(),
        eps,
        torch.get_num_threads(),
    )
    native.check(code, "masked_layer_norm", x=x, weight=weight, widths=widths)
    return y, mean, rstd


def _backward_cpp(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, widths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dy, x, widths = dy.contiguous(), x.contiguous(), widths.contiguous()
    weight_C = weight.to(mean.dtype).contiguous()
    groups, channels = widths.numel(), x.shape[-1]
    # A fixed cut, whatever the number of threads: partial sums then add up in one fixed order.
    chunks = min(32, max(1, mean.numel() // groups // 32))
    partials = x.new_empty((groups * chunks, 2, channels), dtype=mean.dtype)
    dx = torch.empty_like(x)
    dweight, dbias = torch.empty_like(weight_C), torch.empty_like(weight_C)
    code = native.module().masked_layer_norm_backward(
        native.DTYPES[x.dtype],
        *(t.data_ptr() for t in (dy, x, mean, rstd, weight_C, widths)),
        *(t.data_ptr() for t in (dx, partials, dweight, dbias)),
        mean.numel(),
        channels,
        groups,
        chunks,
        torch.get_num_threads(),
    )
    native.check(code, "masked_layer_norm_backward", dy=dy, x=x, widths=widths)
    return dx, dweight.to(weight.dtype), dbias.to(weight.dtype)


def _refused_by_cpp(inputs: Any) -> tuple[str, ...]:
    if inputs[0].dtype in native.DTYPES:
        return ()
    return (f"has no kernel for {inputs[0].dtype}: use float32, float64 or bfloat16",)


def _forward_triton(*arguments: Any) -> Any:
    from vitresnas.kernels import masked_layer_norm as kernel

    return kernel.forward(*arguments)


def _backward_triton(*arguments: Any) -> Any:
    from vitresnas.kernels import masked_layer_norm as kernel

    return kernel.backward(*arguments)


def _refused_by_triton(inputs: Any) -> tuple[str, ...]:
    from vitresnas.kernels import masked_layer_norm as kernel

    return tuple(kernel.refuses(inputs[0]))


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
        Backend("triton", _forward_triton, _backward_triton, _refused_by_triton),
        Backend("cpp", _forward_cpp, _backward_cpp, _refused_by_cpp),
        Backend("reference", _forward_reference, _backward_reference),
    ),
    _trial,
)

# Below: flat torch.library ops and an autograd.Function around them, which costs half as much per
# call as custom_op with register_autograd.
_library = torch.library.Library("vitresnas", "FRAGMENT")
_library.define(
    "masked_layer_norm(Tensor x, Tensor weight, Tensor bias, Tensor widths, float eps)"
    " -> (Tensor y, Tensor mean, Tensor rstd)"
)
_library.define(
    "masked_layer_norm_backward(Tensor dy, Tensor x, Tensor mean, Tensor rstd, Tensor weight,"
    " Tensor widths) -> (Tensor dx, Tensor dweight, Tensor dbias)"
)


def _forward(x: Tensor, weight: Tensor, bias: Tensor, widths: Tensor, eps: float) -> Any:
    channels = x.shape[-1]
    if widths.is_cpu:  # reading a GPU's widths would wait for it; kernels clamp them instead
        for width in widths.tolist():
            if not 0 <= width <= channels:
                raise InputError(
                    f"masked_layer_norm: width {width} does not lie within the {channels} "
                    f"channels of x {tuple(x.shape)}: give widths from 0 to {channels}"
                )
    return choose(OP, (x,)).forward(x, weight, bias, widths, eps)


def _backward(dy: Tensor, x: Tensor, *saved: Tensor) -> Any:
    return choose(OP, (x,)).backward(dy, x, *saved)


for _key in ("CPU", "CUDA"):
    _library.impl("masked_layer_norm", _forward, _key)
    _library.impl("masked_layer_norm_backward", _backward, _key)


@torch.library.register_fake("vitresnas::masked_layer_norm", lib=_library)
def _(x: Tensor, weight: Tensor, bias: Tensor, widths: Tensor, eps: float) -> Any:
    rows = x.new_empty(x.shape[:-1], dtype=statistics_dtype(x))
    return x.new_empty(x.shape), rows, torch.empty_like(rows)


@torch.library.register_fake("vitresnas::masked_layer_norm_backward", lib=_library)
def _(dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, widths: Tensor) -> Any:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


class _MaskedLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, widths: Tensor, eps: float
    ) -> Any:
        y, mean, rstd = torch.ops.vitresnas.masked_layer_norm(x, weight, bias, widths, eps)
        ctx.save_for_backward(x, mean, rstd, weight, widths)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        gradients = torch.ops.vitresnas.masked_layer_norm_backward(dy, *ctx.saved_tensors)
        return *gradients, None, None


def masked_layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, widths: Tensor, eps: float = 1e-6
) -> Tensor:
    """Normalise each row of `x` over the first channels of its group; the rest becomes zero.

    Arguments:
        x: (B, ..., C), float32, float64, bfloat16 or float16; group g is the images
            [g * B/G, (g + 1) * B/G), and only its first widths[g] channels are read.
        weight, bias: (C,), both of x's dtype, or both float32 beside a half-precision x.
        widths: (G,), int32, on x's device, from 0 to C each; G divides B.
        eps: added to the variance.

    Returns: (B, ..., C) in x's dtype. Gradients are full-size, and exactly zero in the columns of
    weight and bias that no group reaches.
    """
    _check(x, weight, bias, widths)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        y: Tensor = _MaskedLayerNorm.apply(x, weight, bias, widths, eps)
        return y
    y, _, _ = torch.ops.vitresnas.masked_layer_norm(x, weight, bias, widths, eps)
    return y


def _check(x: Tensor, weight: Tensor, bias: Tensor, widths: Tensor) -> None:
    if x.dtype not in FLOATS or x.dim() < 2 or x.shape[-1] == 0:
        problem = "x must be (B, ..., C) of a floating type with C > 0"
    elif weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        problem = f"weight and bias must have shape ({x.shape[-1]},), one value per channel of x"
    elif weight.dtype != bias.dtype or weight.dtype not in (x.dtype, statistics_dtype(x)):
        problem = f"weight and bias must both be {x.dtype} or both {statistics_dtype(x)}"
    elif widths.dim() != 1 or widths.dtype != torch.int32:
        problem = "widths must be a one-dimensional int32 tensor, one width per group"
    elif widths.shape[0] == 0 or x.shape[0] % widths.shape[0]:
        problem = "the number of widths must divide the batch: one width per equal group of images"
    elif not x.device == weight.device == bias.device == widths.device:
        problem = "all tensors must be on one device"
    else:
        return
    tensors = {"x": x, "weight": weight, "bias": bias, "widths": widths}
    given = ", ".join(
        f"{name} {tuple(t.shape)} {t.dtype} {t.device}" for name, t in tensors.items()
    )
    raise InputError(f"masked_layer_norm: {problem}; got {given}")
