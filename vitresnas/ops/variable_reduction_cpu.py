"""`variable_reduction` on the CPU: torch's matrix products on views, C++ for all around them.

One product per tap of the filter: the tokens that the tap meets are copied into a dense matrix that
stays in the cache, the tap's weights are a view of channels_last memory, and the product is added
in place. So nothing is unfolded or packed, and a product sees active columns alone.

Products run in float32 also for bfloat16 tensors (float64 for float64): faster than this kind of
processor's bfloat16 products, and sums over taps lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vitresnas.ops import native
from vitresnas.ops.masked_layer_norm import statistics_dtype

# Along one axis: (tap, shift of the output's index) that meet an even and an odd input.
PARITY = (((1, 0),), ((2, 0), (0, 1)))


def forward(
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
    kind, half = statistics_dtype(y), grid // 2
    x, y = x.contiguous(), y.contiguous()
    added = [t.to(kind).contiguous() for t in (convolution_bias, position_embedding, prefix_bias)]
    taps_KTC = _by_tap(convolution_weight)
    out = x.new_empty(x.shape[0], prefix + half * half, taps_KTC.shape[0])
    for images, k, n in _groups(x.shape[0], widths_in, widths_out):
        y_ENC = y[images]
        patches = x.new_empty(len(y_ENC) * half * half, n, dtype=kind)
        columns = x.new_empty(len(patches), k, dtype=kind)
        for tap in range(9 if k else 0):
            _gather(y_ENC, columns, grid, prefix, 2, tap // 3 - 1, tap % 3 - 1)
            weight = taps_KTC[:n, tap, :k].to(kind).T
            torch.addmm(patches, columns, weight, beta=min(tap, 1), out=patches)
        prefixes = _rows(y_ENC[:, :prefix, :k], kind) @ prefix_weight[:n, :k].to(kind).T
        code = native.module().reduction_forward(
            *_shape(x.dtype, len(y_ENC), grid, prefix, y.shape[-1], out.shape[-1], k, n),
            *(t.data_ptr() for t in (patches, prefixes, x[images], *added, out[images])),
        )
        native.check(code, "variable_reduction", x=x, y=y, out=out)
    return out


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
    kind, half, channels = statistics_dtype(y), grid // 2, y.shape[-1]
    dout, y = dout.contiguous(), y.contiguous()
    taps_KTC = _by_tap(convolution_weight)
    dx, dy = y.new_empty(y.shape, dtype=dout.dtype), torch.empty_like(y)
    dtaps_KTC = torch.zeros_like(taps_KTC, dtype=kind)
    dprefix_weight = torch.zeros_like(prefix_weight, dtype=kind)
    for images, k, n in _groups(y.shape[0], widths_in, widths_out):
        y_ENC, dout_ENK, dy_ENC = y[images], dout[images], dy[images]
        shape = _shape(dout.dtype, len(y_ENC), grid, prefix, channels, dout.shape[-1], k, n)
        code = native.module().reduction_skip(*shape, dout_ENK.data_ptr(), dx[images].data_ptr())
        native.check(code, "variable_reduction_backward", dout=dout, y=y)
        if not k:
            continue
        shifted_SRN = y.new_empty(4, len(y_ENC) * half * half, n, dtype=kind)
        for shift in range(4):
            _gather(dout_ENK, shifted_SRN[shift], half, prefix, 1, shift // 2, shift % 2)

        columns = y.new_empty(shifted_SRN.shape[1], k, dtype=kind)
        for tap in range(9):
            _gather(y_ENC, columns, grid, prefix, 2, tap // 3 - 1, tap % 3 - 1)
            dtaps_KTC[:n, tap, :k].addmm_(shifted_SRN[0].T, columns)

        shape = _shape(y.dtype, len(y_ENC), grid, prefix, channels, dout.shape[-1], k, n)
        for row in range(2):
            for column in range(2):
                for at, (tap, shift) in enumerate(taps_of(row, column)):
                    weight = taps_KTC[:n, tap, :k].to(kind)
                    torch.addmm(columns, shifted_SRN[shift], weight, beta=min(at, 1), out=columns)
                code = native.module().reduction_scatter(
                    *shape, columns.data_ptr(), dy_ENC.data_ptr(), row, column
                )
                native.check(code, "variable_reduction_backward", dout=dout, y=y)

        dprefixes = _rows(dout_ENK[:, :prefix, :n], kind)
        dprefix_weight[:n, :k].addmm_(dprefixes.T, _rows(y_ENC[:, :prefix, :k], kind))
        dprefix_rows = dprefixes @ prefix_weight[:n, :k].to(kind)
        dy_ENC[:, :prefix, :k] = dprefix_rows.view(len(y_ENC), prefix, k)
        dy_ENC[:, :prefix, k : -(-k // 16) * 16] = 0
    live = torch.where(widths_in > 0, widths_out, 0)
    dtokens, dprefix_bias, dbias = token_sums(dout, live, prefix)
    dweight_KSSC = dtaps_KTC.unflatten(1, (3, 3))
    return (
        dx, dy, dweight_KSSC.permute(0, 3, 1, 2), dbias, dtokens[None, prefix:].clone(),
        dprefix_weight, dprefix_bias,
    )  # fmt: skip


def taps_of(row: int, column: int) -> Iterator[tuple[int, int]]:
    """(tap, shift) that meet the inputs (2i + row, 2j + column); both numbers hold two axes."""
    for tap_down, down in PARITY[row]:
        for tap_right, right in PARITY[column]:
            yield 3 * tap_down + tap_right, 2 * down + right


def token_sums(x: Tensor, widths: Tensor, prefix: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of x (B, N, C) over images (N, C), and of those over the prefix and over the patches."""
    sums = x.new_empty(x.shape[1:], dtype=statistics_dtype(x))
    prefix_total, patch_total = (sums.new_empty(x.shape[-1]) for _ in range(2))
    widths = widths.to(torch.int32).contiguous()
    code = native.module().token_sums(
        native.DTYPES[x.dtype],
        *(t.data_ptr() for t in (x, widths, sums, prefix_total, patch_total)),
        *(x.shape[0], x.shape[1], prefix, x.shape[2], widths.numel(), torch.get_num_threads()),
    )
    native.check(code, "token_sums", x=x, widths=widths)
    return sums, prefix_total, patch_total


def _groups(batch: int, widths_in: Tensor, widths_out: Tensor) -> Iterator[tuple[slice, int, int]]:
    """Each group's images, input and output width."""
    size = batch // len(widths_in)
    pairs = zip(widths_in.tolist(), widths_out.tolist(), strict=True)
    for group, (k, n) in enumerate(pairs if size else ()):
        yield slice(group * size, (group + 1) * size), k, n


def _by_tap(weight_KCSS: Tensor) -> Tensor:
    """(K, 9, C): a view of channels_last memory."""
    return weight_KCSS.permute(0, 2, 3, 1).flatten(1, 2)


def _rows(x_EPC: Tensor, kind: torch.dtype) -> Tensor:
    return x_EPC.flatten(0, 1).to(kind)


def _shape(dtype: torch.dtype, *sizes: int) -> tuple[int, int, tuple[int, ...]]:
    return native.DTYPES[dtype], torch.get_num_threads(), sizes


def _gather(
    x_ENC: Tensor, columns: Tensor, side: int, prefix: int, stride: int, down: int, right: int
) -> None:
    """columns: the patches of `x_ENC` at (stride * i + down, stride * j + right), zeros outside."""
    half = side // stride
    code = native.module().gather_tokens(
        native.DTYPES[x_ENC.dtype],
        *(x_ENC.data_ptr(), columns.data_ptr(), len(x_ENC), prefix, side, half, x_ENC.shape[-1]),
        *(columns.shape[1], stride, down, right, torch.get_num_threads()),
    )
    native.check(code, "variable_reduction", x=x_ENC, columns=columns)
