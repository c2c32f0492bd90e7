"""Self-attention of the first heads of each group of images, on packed queries, keys and values.

    out[b, t, h] = sum_s p[b, h, t, s] v[b, s, h]
    p[b, h, t] = softmax_s(scale q[b, t, h] . k[b, s, h])

for the heads h < heads[g] of an image b of group g. Backward, with lse the logarithm of the sum
that the softmax divides by, kept by the forward pass, and dout the gradient of out:

    p = exp(scale q k' - lse)     delta[t] = dout[t] . out[t]     ds = p * (dout v' - delta)
    dq = scale ds k               dk = scale ds' q                dv = p' dout

Scaled dot-product attention is Vaswani et al. (arXiv:1706.03762); recomputing p from lse is
FlashAttention (arXiv:2205.14135). A prefix of the heads per group of images is how a ViT-ResNAS
super-network runs several sub-networks in one batch (arXiv:2109.00642, section 3.3).

Legend: B images, G groups of B/G consecutive images, T tokens, H most heads, D head dimension.
Inactive heads may hold anything, NaN too, and nothing is written there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitresnas.errors import InputError
from vitresnas.ops import native
from vitresnas.ops import variable_attention_cuda as cuda
from vitresnas.ops import variable_attention_reference as plain
from vitresnas.ops.dispatch import Backend, Op, as_given, choose, triton_backend
from vitresnas.ops.variable_attention_reference import reference, statistics_dtype

__all__ = ["OP", "reference", "variable_attention"]

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _empty(qkv: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Room for out (B, T, H*D) and lse (B, H, T)."""
    batch, tokens, columns = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    lse = qkv.new_empty(batch, columns // head_dim, tokens, dtype=statistics_dtype(qkv))
    return qkv.new_empty(batch, tokens, columns), lse


def _shape_for_cpp(qkv: Tensor, heads: Tensor, head_dim: int, scale: float) -> tuple[Any, ...]:
    """The arguments that both directions share, with scratch memory for every thread."""
    batch, tokens, columns = qkv.shape
    threads = torch.get_num_threads()
    numbers = native.module().variable_attention_scratch(tokens, head_dim)
    scratch = qkv.new_empty(threads * numbers, dtype=statistics_dtype(qkv))
    sizes = (batch, tokens, columns // (3 * head_dim), head_dim, heads.numel())
    code = native.DTYPES[qkv.dtype]
    # The tensor goes along, last, so that it lives as long as its address is in use.
    return code, *sizes, heads.data_ptr(), scale, scratch.data_ptr(), threads, scratch


def _forward_cpp(qkv: Tensor, heads: Tensor, head_dim: int, scale: float) -> tuple[Tensor, Tensor]:
    out, lse = _empty(qkv, head_dim)
    *shape, _scratch = _shape_for_cpp(qkv, heads, head_dim, scale)
    addresses = (t.data_ptr() for t in (qkv, out, lse))
    code = native.module().variable_attention_forward(*addresses, *shape)
    native.check(code, "variable_attention", qkv=qkv, heads=heads)
    return out, lse


def _backward_cpp(
    dout: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, heads: Tensor, head_dim: int, scale: float
) -> Tensor:
    dqkv = torch.empty_like(qkv)
    *shape, _scratch = _shape_for_cpp(qkv, heads, head_dim, scale)
    addresses = (t.data_ptr() for t in (dout, qkv, out, lse, dqkv))
    code = native.module().variable_attention_backward(*addresses, *shape)
    native.check(code, "variable_attention_backward", qkv=qkv, heads=heads)
    return dqkv


def _trial(backend: Backend, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    heads = torch.tensor([2, 1], dtype=torch.int32, device=device)
    # Numbers that half precision holds exactly, so that kernels without float32 compare too.
    dtype = torch.float16 if backend.name == "cuda" else torch.float32
    found = []
    for tokens, head_dim in ((17, 64), (65, 48)):
        qkv = torch.randn(2, tokens, 6 * head_dim, generator=generator).half().to(device, dtype)
        dout = torch.randn(2, tokens, 2 * head_dim, generator=generator).half().to(device, dtype)
        scale = head_dim**-0.5
        out, lse = backend.forward(qkv, heads, head_dim, scale)
        dqkv = backend.backward(dout, qkv, out, lse, heads, head_dim, scale)
        parts = (out, *dqkv.chunk(3, -1))
        found += [torch.cat((t[0].flatten(), t[1, :, :head_dim].flatten())) for t in parts]
    return tuple(found)


OP = Op(
    "variable_attention",
    (
        Backend("cuda", cuda.forward, cuda.backward, cuda.refuses),
        triton_backend("variable_attention"),
        Backend("cpp", _forward_cpp, _backward_cpp, lambda inputs: native.refuses(inputs[0])),
        Backend("reference", plain.forward, plain.backward),
    ),
    _trial,
)

# Below: flat torch.library ops and an autograd.Function around them, as in masked_layer_norm.py.
_library = torch.library.Library("vitresnas", "FRAGMENT")
_library.define(
    "variable_attention(Tensor qkv, Tensor heads, int head_dim, float scale)"
    " -> (Tensor out, Tensor lse)"
)
_library.define(
    "variable_attention_backward(Tensor dout, Tensor qkv, Tensor out, Tensor lse, Tensor heads,"
    " int head_dim, float scale) -> Tensor"
)


def _choose(qkv: Tensor, heads: Tensor, head_dim: int) -> Backend:
    """Backends look at qkv as (B, T, 3, H, D) when they say what they cannot do."""
    return choose(OP, (qkv.unflatten(-1, (3, -1, head_dim)), heads))


def _forward(qkv: Tensor, heads: Tensor, head_dim: int, scale: float) -> Any:
    most = qkv.shape[-1] // (3 * head_dim)
    if heads.is_cpu:  # reading a GPU's numbers would wait for it; kernels clamp them instead
        for live in heads.tolist():
            if not 0 <= live <= most:
                raise InputError(
                    f"variable_attention: {live} heads do not lie within the {most} heads of "
                    f"dimension {head_dim} in qkv {tuple(qkv.shape)}: give from 0 to {most}"
                )
    qkv, heads = qkv.contiguous(), heads.contiguous()
    return _choose(qkv, heads, head_dim).forward(qkv, heads, head_dim, scale)


def _backward(
    dout: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, heads: Tensor, head_dim: int, scale: float
) -> Any:
    dout, qkv, out, lse, heads = (t.contiguous() for t in (dout, qkv, out, lse, heads))
    backward = _choose(qkv, heads, head_dim).backward
    return backward(dout, qkv, out, lse, heads, head_dim, scale)


for _key in ("CPU", "CUDA"):
    _library.impl("variable_attention", as_given(_forward), _key)
    _library.impl("variable_attention_backward", as_given(_backward), _key)


@torch.library.register_fake("vitresnas::variable_attention", lib=_library)
def _(qkv: Tensor, heads: Tensor, head_dim: int, scale: float) -> Any:
    return _empty(qkv, head_dim)


@torch.library.register_fake("vitresnas::variable_attention_backward", lib=_library)
def _(
    dout: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, heads: Tensor, head_dim: int, scale: float
) -> Any:
    return qkv.new_empty(qkv.shape)


class _VariableAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: Tensor, head_dim: int, scale: float) -> Any:
        out, lse = torch.ops.vitresnas.variable_attention(qkv, heads, head_dim, scale)
        ctx.save_for_backward(qkv, out, lse, heads)
        ctx.numbers = head_dim, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> Any:
        tensors = dout, *ctx.saved_tensors
        dqkv = torch.ops.vitresnas.variable_attention_backward(*tensors, *ctx.numbers)
        return dqkv, None, None, None


def variable_attention(
    qkv: Tensor, heads: Tensor, head_dim: int, *, scale: float | None = None
) -> Tensor:
    """Attention within each image, over the first heads of its group.

    Arguments:
        qkv: (B, T, 3*H*D), float32, float64, bfloat16 or float16: per token all queries, then all
            keys, then all values, head by head. Group g is the images [g * B/G, (g + 1) * B/G).
        heads: (G,), int32, on qkv's device, from 0 to H each; G divides B. A group with 0 heads is
            skipped.
        head_dim: D.
        scale: of the scores; D**-0.5 by default.

    Returns: (B, T, H*D) in qkv's dtype. Of the result and of qkv's gradient only the columns of
    live heads are written, and zeros behind them to a multiple of 16; the rest is unspecified.
    """
    _check(qkv, heads, head_dim)
    scale = head_dim**-0.5 if scale is None else float(scale)
    if torch.is_grad_enabled() and qkv.requires_grad:
        differentiable: Tensor = _VariableAttention.apply(qkv, heads, head_dim, scale)
        return differentiable
    out: Tensor = torch.ops.vitresnas.variable_attention(qkv, heads, head_dim, scale)[0]
    return out


def _check(qkv: Tensor, heads: Tensor, head_dim: int) -> None:
    if qkv.dtype not in FLOATS or qkv.dim() != 3:
        problem = "qkv must be (B, T, 3*H*D) of a floating type"
    elif head_dim < 1 or qkv.shape[-1] == 0 or qkv.shape[-1] % (3 * head_dim):
        problem = "qkv's last dimension must be three times a number of heads times head_dim"
    elif heads.dim() != 1 or heads.dtype != torch.int32:
        problem = "heads must be a one-dimensional int32 tensor, one number per group"
    elif heads.shape[0] == 0 or qkv.shape[0] % heads.shape[0]:
        problem = "the length of heads must divide the batch: one number per equal group of images"
    elif qkv.device != heads.device:
        problem = "both tensors must be on one device"
    else:
        return
    given = ", ".join(
        f"{name} {tuple(t.shape)} {t.dtype} {t.device}"
        for name, t in (("qkv", qkv), ("heads", heads))
    )
    raise InputError(f"variable_attention: {problem}; got {given}, head_dim {head_dim}")
