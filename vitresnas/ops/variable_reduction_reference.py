"""The truth of `variable_reduction` in plain torch: whole tensors, zeros where nothing counts.

No width is read on the host, so that it never waits for a GPU. Legend as in variable_reduction.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitresnas.ops.masked_layer_norm import statistics_dtype


def reference(
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
) -> Tensor:
    """Arguments as `variable_reduction`; differentiable; what does not count comes out zero."""
    kind = statistics_dtype(y)
    outputs = convolution_weight.shape[0]
    x_BNC, y_BNC = (_count(t, widths_in).to(kind) for t in (x, y))
    weight_KCSS, prefix_weight_KC = _used(convolution_weight, prefix_weight, widths_in, widths_out)
    image_BCSS = _image(y_BNC[:, prefix:], grid)
    image_BKSS = F.conv2d(image_BCSS, weight_KCSS, convolution_bias.to(kind), stride=2, padding=1)
    patches_BNK = image_BKSS.flatten(2).transpose(1, 2) + position_embedding.to(kind)
    prefix_BPK = y_BNC[:, :prefix] @ prefix_weight_KC.T + prefix_bias.to(kind)
    pooled_BNC = F.avg_pool2d(_image(x_BNC[:, prefix:], grid), 2).flatten(2).transpose(1, 2)
    skip_BNC = torch.cat((x_BNC[:, :prefix], pooled_BNC), dim=1)[..., :outputs]
    out_BNK = torch.cat((prefix_BPK, patches_BNK), dim=1)
    out_BNK = out_BNK + F.pad(skip_BNC, (0, outputs - skip_BNC.shape[-1]))
    return _count(out_BNK, _live(widths_in, widths_out)).to(x.dtype)


def forward(*arguments: object) -> Tensor:
    """The same as an op's implementation."""
    return reference(*arguments).contiguous()  # type: ignore[arg-type]


def backward(
    dout: Tensor,
    y: Tensor,
    convolution_weight: Tensor,
    prefix_weight: Tensor,
    widths_in: Tensor,
    widths_out: Tensor,
    grid: int,
    prefix: int,
) -> tuple[Tensor, ...]:
    """dx, dy, dconvolution_weight, dconvolution_bias, dposition, dprefix_weight, dprefix_bias."""
    kind, half = statistics_dtype(y), grid // 2
    outputs, channels = prefix_weight.shape
    dout_BNK = _count(dout, _live(widths_in, widths_out)).to(kind)
    y_BNC = _count(y, widths_in).to(kind)
    weight_KCSS, prefix_weight_KC = _used(convolution_weight, prefix_weight, widths_in, widths_out)

    dprefix_BPK, dpatches_BNK = dout_BNK[:, :prefix], dout_BNK[:, prefix:]
    dimage_BKSS = _image(dpatches_BNK, half)
    image_BCSS = _image(y_BNC[:, prefix:], grid)
    dimage_BCSS, dweight_KCSS, dbias_K = torch.ops.aten.convolution_backward(
        dimage_BKSS, image_BCSS, weight_KCSS, [outputs],
        [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True],
    )  # fmt: skip
    dy_BNC = torch.cat(
        (dprefix_BPK @ prefix_weight_KC, dimage_BCSS.flatten(2).transpose(1, 2)), dim=1
    )
    quarter_BKSS = (dimage_BKSS / 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    dx_BNK = torch.cat((dprefix_BPK, quarter_BKSS.flatten(2).transpose(1, 2)), dim=1)
    dx_BNC = F.pad(dx_BNK, (0, max(0, channels - outputs)))[..., :channels]
    dprefix_weight_KC = torch.einsum("bpk,bpc->kc", dprefix_BPK, y_BNC[:, :prefix])
    return (
        _count(dx_BNC, widths_in).to(dout.dtype).contiguous(),
        _count(dy_BNC, widths_in).to(y.dtype).contiguous(),
        dweight_KCSS.contiguous(memory_format=torch.channels_last),
        dbias_K,
        dpatches_BNK.sum(0, keepdim=True),
        dprefix_weight_KC.contiguous(),
        dprefix_BPK.sum((0, 1)),
    )


def _image(patches_BNC: Tensor, side: int) -> Tensor:
    return patches_BNC.transpose(1, 2).unflatten(2, (side, side))


def _live(widths_in: Tensor, widths_out: Tensor) -> Tensor:
    """Output widths, 0 for skipped groups."""
    return torch.where(widths_in > 0, widths_out, 0)


def _count(x_BNC: Tensor, widths_G: Tensor) -> Tensor:
    """`x_BNC` with zeros where its columns do not count."""
    groups = widths_G.shape[0]
    active_GC = torch.arange(x_BNC.shape[-1], device=x_BNC.device) < widths_G[:, None]
    x_GENC = x_BNC.reshape(groups, x_BNC.shape[0] // groups, *x_BNC.shape[1:])
    # where, not a product: 0 * NaN would let inactive memory through.
    return torch.where(active_GC[:, None, None], x_GENC, 0).reshape(x_BNC.shape)


def _used(
    weight_KCSS: Tensor, prefix_weight_KC: Tensor, widths_in: Tensor, widths_out: Tensor
) -> tuple[Tensor, Tensor]:
    """Both weights in the statistics type, zero beyond what the widest group reaches."""
    columns = torch.arange(prefix_weight_KC.shape[1], device=widths_in.device)
    rows = torch.arange(prefix_weight_KC.shape[0], device=widths_in.device)
    reached_KC = (rows < widths_out.max())[:, None] & (columns < widths_in.max())
    kind = statistics_dtype(prefix_weight_KC)
    return (
        torch.where(reached_KC[:, :, None, None], weight_KCSS, 0).to(kind),
        torch.where(reached_KC, prefix_weight_KC, 0).to(kind),
    )
