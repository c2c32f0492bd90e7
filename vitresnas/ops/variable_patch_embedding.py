"""Pixels to tokens, each group of images in its own width.

    tokens[b, P + s, c] = sum over m, u, v of trunk[b, m, p*i + u, p*j + v] * W[c, m, u, v]
                          + bias[c] + position[P + s, c]              patch s = S*i + j
    tokens[b, t, c]     = prefix_tokens[t, c] + position[t, c]        t < P

for c < n = widths[g] of b's group g: a convolution whose stride is its kernel (arXiv:2010.11929;
arXiv:2109.00642, appendix). A group of width 0 leaves nothing and gets no gradient.

Legend: B images, G groups of B/G consecutive images, M mid channels, p patch side, S patches along
a side, P prefix tokens, N = P + S*S, C channels; D = M*p*p, E images and R = E*S*S patches of a
group.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitresnas.errors import InputError
from vitresnas.ops import native, variable_patch_embedding_cpu
from vitresnas.ops.dispatch import Backend, Op, as_given, choose, triton_backend
from vitresnas.ops.masked_layer_norm import FLOATS, statistics_dtype


def reference(
    trunk: Tensor,
    weight: Tensor,
    bias: Tensor,
    prefix_tokens: Tensor,
    position_embedding: Tensor,
    widths: Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The truth in plain torch, differentiable; zero where nothing counts."""
    kind = statistics_dtype(trunk)
    image_BCSS = F.conv2d(trunk.to(kind), _reached(weight, widths), stride=weight.shape[-1])
    patches_BNC = image_BCSS.flatten(2).transpose(1, 2) + bias.to(kind)
    prefix_BNC = prefix_tokens.to(kind).expand(len(trunk), -1, -1)
    tokens_BNC = torch.cat((prefix_BNC, patches_BNC), dim=1) + position_embedding.to(kind)
    return _count(tokens_BNC, widths).to(dtype or position_embedding.dtype)


def _forward_reference(*arguments: Any) -> Tensor:
    return reference(*arguments).contiguous()


def _backward_reference(
    dtokens: Tensor, trunk: Tensor, weight: Tensor, widths: Tensor, prefix: int, need_trunk: bool
) -> tuple[Tensor, ...]:
    kind, patch = statistics_dtype(trunk), weight.shape[-1]
    dtokens_BNC = _count(dtokens, widths).to(kind)
    dimage_BCR = dtokens_BNC[:, prefix:].transpose(1, 2)
    dimage_BCSS = dimage_BCR.unflatten(2, (trunk.shape[2] // patch, trunk.shape[3] // patch))
    dtrunk, dweight, _ = torch.ops.aten.convolution_backward(
        dimage_BCSS, trunk.to(kind), _reached(weight, widths), None,
        [patch, patch], [0, 0], [1, 1], False, [0, 0], 1, [need_trunk, True, False],
    )  # fmt: skip
    dposition_1NC = dtokens_BNC.sum(0, keepdim=True)
    return (
        dtrunk.to(trunk.dtype).contiguous() if need_trunk else trunk.new_empty(0),
        dweight.contiguous(),
        dposition_1NC[0, prefix:].sum(0),
        dposition_1NC[:, :prefix].clone(),
        dposition_1NC,
    )


def _count(x_BNC: Tensor, widths: Tensor) -> Tensor:
    """`x_BNC` with zeros where its columns do not count."""
    active_GC = torch.arange(x_BNC.shape[-1], device=x_BNC.device) < widths[:, None]
    x_GENC = x_BNC.reshape(len(widths), len(x_BNC) // len(widths), *x_BNC.shape[1:])
    # where, not a product: 0 * NaN would let inactive memory through.
    return torch.where(active_GC[:, None, None], x_GENC, 0).reshape(x_BNC.shape)


def _reached(weight: Tensor, widths: Tensor) -> Tensor:
    """The weight in the statistics type, zero beyond the widest group."""
    reached_C = torch.arange(len(weight), device=widths.device) < widths.max()
    return torch.where(reached_C[:, None, None, None], weight, 0).to(statistics_dtype(weight))


def _trial(backend: Backend, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    trunk, weight, dtokens = draw(4, 3, 8, 8), draw(48, 3, 4, 4), draw(4, 5, 48)
    added = draw(48), draw(1, 1, 48), draw(1, 5, 48)
    widths = torch.tensor([48, 16], dtype=torch.int32, device=device)
    tokens = backend.forward(trunk, weight, *added, widths, torch.float32)
    gradients = backend.backward(dtokens, trunk, weight, widths, 1, True)
    # Beyond the widths (multiples of 16 here) memory is nobody's.
    return tokens[:2], tokens[2:, :, :16], *gradients


OP = Op(
    "variable_patch_embedding",
    (
        triton_backend("variable_patch_embedding"),
        Backend(
            "cpp",
            variable_patch_embedding_cpu.forward,
            variable_patch_embedding_cpu.backward,
            lambda inputs: native.refuses(*inputs[:2]),
        ),
        Backend("reference", _forward_reference, _backward_reference),
    ),
    _trial,
)

_library = torch.library.Library("vitresnas", "FRAGMENT")
_library.define(
    "variable_patch_embedding(Tensor trunk, Tensor weight, Tensor bias, Tensor prefix_tokens,"
    " Tensor position_embedding, Tensor widths, ScalarType dtype) -> Tensor"
)
_library.define(
    "variable_patch_embedding_backward(Tensor dtokens, Tensor trunk, Tensor weight, Tensor widths,"
    " int prefix, bool need_trunk) -> (Tensor dtrunk, Tensor dweight, Tensor dbias,"
    " Tensor dprefix_tokens, Tensor dposition_embedding)"
)


def _forward(trunk: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    position, widths, dtype = rest[-3:]
    if widths.is_cpu:  # reading a GPU's widths would wait for it; kernels clamp them instead
        for width in widths.tolist():
            if not 0 <= width <= len(weight):
                raise InputError(
                    f"variable_patch_embedding: width {width} does not lie within the "
                    f"{len(weight)} channels of weight {tuple(weight.shape)}: give widths from 0 "
                    f"to {len(weight)}"
                )
    out_like = position.new_empty(0, dtype=dtype)
    tokens: Tensor = choose(OP, (trunk, out_like)).forward(trunk, weight, *rest)
    return tokens


def _backward(dtokens: Tensor, trunk: Tensor, *rest: Any) -> Any:
    return choose(OP, (trunk, dtokens)).backward(dtokens, trunk, *rest)


for _key in ("CPU", "CUDA"):
    _library.impl("variable_patch_embedding", as_given(_forward), _key)
    _library.impl("variable_patch_embedding_backward", as_given(_backward), _key)


@torch.library.register_fake("vitresnas::variable_patch_embedding", lib=_library)
def _(trunk: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    position, _, dtype = rest[-3:]
    return position.new_empty((trunk.shape[0], *position.shape[1:]), dtype=dtype)


@torch.library.register_fake("vitresnas::variable_patch_embedding_backward", lib=_library)
def _(
    dtokens: Tensor, trunk: Tensor, weight: Tensor, widths: Tensor, prefix: int, need_trunk: bool
) -> Any:
    channels = weight.shape[0]

    def parameter(*shape: int) -> Tensor:
        return trunk.new_empty(shape, dtype=statistics_dtype(trunk))

    return (
        trunk.new_empty(trunk.shape if need_trunk else (0,)),
        parameter(*weight.shape),
        parameter(channels),
        parameter(1, prefix, channels),
        parameter(1, dtokens.shape[1], channels),
    )


class _VariablePatchEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        trunk: Tensor,
        weight: Tensor,
        bias: Tensor,
        prefix_tokens: Tensor,
        position_embedding: Tensor,
        widths: Tensor,
        dtype: torch.dtype,
    ) -> Any:
        weight = weight.to(trunk.dtype).contiguous()
        ctx.save_for_backward(trunk, weight, widths)
        ctx.prefix, ctx.need_trunk = prefix_tokens.shape[1], ctx.needs_input_grad[0]
        return torch.ops.vitresnas.variable_patch_embedding(
            trunk, weight, bias, prefix_tokens, position_embedding, widths, dtype
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtokens: Tensor) -> Any:
        dtrunk, *gradients = torch.ops.vitresnas.variable_patch_embedding_backward(
            dtokens, *ctx.saved_tensors, ctx.prefix, ctx.need_trunk
        )
        trunk = ctx.saved_tensors[0]
        if ctx.need_trunk and trunk.is_contiguous(memory_format=torch.channels_last):
            # What precedes runs in this layout; a gradient in another would slow all of it.
            dtrunk = dtrunk.contiguous(memory_format=torch.channels_last)
        return (dtrunk if ctx.need_trunk else None, *gradients, None, None)


def variable_patch_embedding(
    trunk: Tensor,
    weight: Tensor,
    bias: Tensor,
    prefix_tokens: Tensor,
    position_embedding: Tensor,
    widths: Tensor,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Project the patches of `trunk`, put prefix tokens in front and add positions.

    Arguments:
        trunk: (B, M, S*p, S*p), float32, float64, bfloat16 or float16, in any memory format; it has
            the same width in every group.
        weight: (C, M, p, p), bias: (C,). prefix_tokens: (1, P, C). position_embedding:
            (1, P + S*S, C). All in trunk's dtype, or float32 beside a half-precision trunk.
        widths: (G,), int32, on trunk's device, from 0 to C each; G divides B. Group g is the images
            [g * B/G, (g + 1) * B/G).
        dtype: of the tokens; by default position_embedding's.

    Returns: (B, P + S*S, C), zero from widths[g] to the next multiple of 16, unspecified beyond.
    Gradients of parameters are full-size and exactly zero where no group reaches; they are float32,
    or float64 for a float64 trunk, until autograd hands them on.
    """
    dtype = dtype or position_embedding.dtype
    arguments = trunk, weight, bias, prefix_tokens, position_embedding, widths
    _check(*arguments, dtype)
    tokens: Tensor = _VariablePatchEmbedding.apply(*arguments, dtype)
    return tokens


def _check(
    trunk: Tensor,
    weight: Tensor,
    bias: Tensor,
    prefix_tokens: Tensor,
    position_embedding: Tensor,
    widths: Tensor,
    dtype: torch.dtype,
) -> None:
    tensors = {
        "trunk": trunk,
        "weight": weight,
        "bias": bias,
        "prefix_tokens": prefix_tokens,
        "position_embedding": position_embedding,
        "widths": widths,
    }
    kinds = trunk.dtype, statistics_dtype(trunk)
    parameters = weight, bias, prefix_tokens, position_embedding
    channels, patch = (weight.shape[0], weight.shape[-1]) if weight.dim() else (0, 0)
    prefix = prefix_tokens.shape[1] if prefix_tokens.dim() == 3 else 0
    side = trunk.shape[-1] // patch if trunk.dim() == 4 and patch else 0
    if trunk.dtype not in FLOATS or trunk.dim() != 4 or trunk.shape[2] != trunk.shape[3]:
        problem = "trunk must be (B, M, side, side) of a floating type"
    elif not channels or weight.shape != (channels, trunk.shape[1], patch, patch):
        problem = f"weight must be (C, {trunk.shape[1]}, p, p)"
    elif side == 0 or side * patch != trunk.shape[-1]:
        problem = f"the side {trunk.shape[-1]} of trunk must be a multiple of the patch {patch}"
    elif bias.shape != (channels,) or prefix_tokens.shape != (1, prefix, channels):
        problem = f"bias must be ({channels},) and prefix_tokens (1, P, {channels})"
    elif position_embedding.shape != (1, prefix + side * side, channels):
        problem = f"position_embedding must be (1, {prefix} + {side}*{side}, {channels})"
    elif any(t.dtype not in kinds for t in parameters):
        problem = f"parameters must be {kinds[0]} or {kinds[1]}"
    elif dtype not in FLOATS or (dtype == torch.float64) != (trunk.dtype == torch.float64):
        problem = f"tokens of {dtype} cannot come from a trunk of {trunk.dtype}"
    elif widths.dim() != 1 or widths.dtype != torch.int32:
        problem = "widths must be a one-dimensional int32 tensor, one width per group"
    elif widths.shape[0] == 0 or trunk.shape[0] % widths.shape[0]:
        problem = "the number of widths must divide the batch: one width per equal group of images"
    elif len({t.device for t in tensors.values()}) > 1:
        problem = "all tensors must be on one device"
    else:
        return
    given = ", ".join(
        f"{name} {tuple(t.shape)} {t.dtype} {t.device}" for name, t in tensors.items()
    )
    raise InputError(f"variable_patch_embedding: {problem}; got {given}")
