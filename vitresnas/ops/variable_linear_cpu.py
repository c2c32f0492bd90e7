"""The variable-width linear on the CPU: torch's products on views, C++ around them (backend "cpp").

A product works on the active part in place, `x[:, :k] @ W[:n, :k]^T`: measured on a Xeon, strided
operands cost nothing. Rows go in chunks, so that what follows a product (bias, GELU, residual)
finds it in the cache, and no product is stored only to be read again. Legend: variable_linear.py.

Where the processor has no matrix unit for bfloat16 its products run at half the speed of float32:
there a float32 weight beside bfloat16 activations is taken as it is, and a chunk of activations is
widened just before its product. Storage stays bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vitresnas.ops import native
from vitresnas.ops.variable_linear_reference import accumulator

try:
    MATRIX_UNIT = "amx_bf16" in Path("/proc/cpuinfo").read_text()
except OSError:  # not Linux
    MATRIX_UNIT = False

CHUNK = 1024  # rows of a product: enough for full speed, and at most a few MB


def operand(weight: Tensor, x: Tensor) -> Tensor:
    """The weight as products with x take it: in x's type, or wider where that is faster."""
    if x.is_cpu and x.dtype == torch.bfloat16 and not MATRIX_UNIT:
        return weight
    return weight.to(x.dtype)


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
    kernels, threads = native.module(), torch.get_num_threads()
    kind, wide = native.DTYPES[weight.dtype], native.DTYPES[dtype]
    x_RK, bias = _rows(x), bias.to(accumulator(x.dtype)).contiguous()
    outputs = weight.shape[0]
    part = outputs // segments  # rows of a segment
    y = x.new_empty((*x.shape[:-1], outputs), dtype=dtype)
    y_RN = y.view(-1, outputs)
    pre_RN = x.new_empty(y_RN.shape if gelu and keep else (0, 0))
    residual_RN = None if residual is None else residual.reshape(y_RN.shape).contiguous()
    per_image = max(1, x.shape[1:-1].numel())
    in_place = not gelu and residual is None and dtype == weight.dtype
    buffer = weight.new_empty(0 if in_place else min(CHUNK, len(x_RK)) * part)

    for first, last, k, n in _chunks(x, widths_in, widths_out):
        padded = min(-(-n // 16) * 16, part)
        x_Rk = x_RK[first:last, :k].to(weight.dtype) if k else None
        for column in range(0, outputs, part):
            place = first * outputs + column
            to = y.data_ptr() + place * dtype.itemsize
            product_Rn = y_RN[first:last, column : column + n]
            if not in_place:
                product_Rn = buffer[: (last - first) * n].view(last - first, n)
            if x_Rk is not None:
                torch.mm(x_Rk, weight[column : column + n, :k].t(), out=product_Rn)
            product = (product_Rn.data_ptr() if k else 0, product_Rn.stride(0))
            offset = bias.data_ptr() + column * bias.element_size()
            sizes = (last - first, n, padded, threads)
            if residual_RN is not None:
                beside = residual_RN.data_ptr() + place * dtype.itemsize
                code = kernels.linear_residual(
                    kind, wide, *product, offset, beside, _address(scale), to, outputs,
                    first, per_image, *sizes,
                )  # fmt: skip
            elif not k:
                continue
            elif gelu:
                saved = pre_RN.data_ptr() + place * x.element_size() if keep else 0
                code = kernels.linear_gelu(kind, wide, *product, offset, saved, to, outputs, *sizes)
            else:
                code = kernels.linear_bias(kind, wide, *product, offset, to, outputs, *sizes)
            native.check(code, "variable_linear", x=x, weight=weight)
    return y, pre_RN.view(y.shape) if gelu and keep else x.new_empty(0)


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
    x_RK, dy_RN = _rows(x), _rows(dy)
    pre = None if pre is None else pre.contiguous()
    part = weight.shape[0] // segments
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dx_RK = dx.view(x_RK.shape)
    dweight = torch.empty_like(weight, dtype=sums)  # the first group to come writes all of it
    dbias = dweight.new_zeros(weight.shape[0])
    fresh = True
    per_image = max(1, x.shape[1:-1].numel())

    for first, last, k, n in _chunks(x, widths_in, widths_out, whole=True):
        if not k:
            continue
        dys, weights = [], []
        x_Rk = x_RK[first:last, :k].to(weight.dtype) if n else None
        for column in range(0, weight.shape[0] if n else 0, part):
            rows, columns = slice(first, last), slice(column, column + n)
            dbias_n = dbias[columns]
            dy_Rn = _incoming(dy_RN[rows, columns], weight, scale, first, per_image, dbias_n)
            if fresh and k < x_RK.shape[1]:
                dweight[columns, k:] = 0
            if fresh and n < part:
                dweight[column + n : column + part] = 0
            assert x_Rk is not None
            _add_product(dweight[columns, :k], dy_Rn.t(), x_Rk, fresh)
            dys.append(dy_Rn)
            weights.append(weight[columns, :k])
        fresh = fresh and not n
        step = _even(last - first, CHUNK)
        for start in range(first, last, step):
            run = slice(start, min(start + step, last))
            local = slice(run.start - first, run.stop - first)
            _outgoing(dx_RK, run, k, [dy_Rn[local] for dy_Rn in dys], weights, pre)
    return dx, dweight.zero_() if fresh else dweight, dbias


def _incoming(
    dy_Rn: Tensor, weight: Tensor, scale: Tensor | None, first: int, per_image: int, dbias_n: Tensor
) -> Tensor:
    """dy as products take it: scaled, in the weight's type; its column sums go into dbias_n."""
    kernels, (rows, columns) = native.module(), dy_Rn.shape
    as_it_is = scale is None and dy_Rn.dtype == weight.dtype
    scaled_Rn = dy_Rn if as_it_is else weight.new_empty(rows, columns)
    partials = dbias_n.new_empty(-(-rows // kernels.linear_run), columns)
    code = kernels.linear_incoming(
        native.DTYPES[weight.dtype],
        native.DTYPES[dy_Rn.dtype],
        dy_Rn.data_ptr(),
        dy_Rn.stride(0),
        _address(scale),
        first,
        per_image,
        0 if as_it_is else scaled_Rn.data_ptr(),
        columns,
        partials.data_ptr(),
        dbias_n.data_ptr(),
        rows,
        columns,
        torch.get_num_threads(),
    )
    native.check(code, "variable_linear_backward", dy=dy_Rn, weight=weight)
    return scaled_Rn


def _outgoing(
    dx_RK: Tensor,
    run: slice,
    k: int,
    dys_Rn: list[Tensor],
    weights_nk: list[Tensor],
    pre: Tensor | None,
) -> None:
    """Rows `run` of dx: the sum of the segments' products, times gelu'(pre)."""
    inputs = dx_RK.shape[1]
    padded = min(-(-k // 16) * 16, inputs)
    if not dys_Rn:
        dx_RK[run, :padded] = 0
        return
    kind = dys_Rn[0].dtype
    half = kind == torch.bfloat16 and len(dys_Rn) > 1
    to_Rk = dx_RK[run, :k]
    in_place = pre is None and not half and kind == dx_RK.dtype
    product_Rk = to_Rk if in_place else dys_Rn[0].new_empty(to_Rk.shape)
    torch.mm(dys_Rn[0], weights_nk[0], out=product_Rk)
    if half:  # partial sums keep float32
        total_Rk = product_Rk.float()
        for dy_Rn, weight_nk in zip(dys_Rn[1:], weights_nk[1:], strict=True):
            total_Rk += torch.mm(dy_Rn, weight_nk, out=product_Rk)
        (to_Rk if pre is None else product_Rk).copy_(total_Rk)
    else:
        for dy_Rn, weight_nk in zip(dys_Rn[1:], weights_nk[1:], strict=True):
            product_Rk.addmm_(dy_Rn, weight_nk)
        if pre is None and not in_place:
            to_Rk.copy_(product_Rk)
    if pre is None:
        if k < padded:
            dx_RK[run, k:padded] = 0
        return
    place = run.start * inputs * dx_RK.element_size()
    code = native.module().linear_gelu_backward(
        native.DTYPES[kind],
        native.DTYPES[dx_RK.dtype],
        product_Rk.data_ptr(),
        product_Rk.stride(0),
        pre.data_ptr() + place,
        dx_RK.data_ptr() + place,
        inputs,
        run.stop - run.start,
        k,
        padded,
        torch.get_num_threads(),
    )
    native.check(code, "variable_linear_backward", pre=pre, dx=dx_RK)


def _chunks(
    x: Tensor, widths_in: Tensor, widths_out: Tensor, whole: bool = False
) -> Iterator[tuple[int, int, int, int]]:
    """(first row, last row, k, n) of every run of rows; one run per group if `whole`."""
    rows = x.shape[:-1].numel() // len(widths_in)
    step = max(1, rows) if whole else _even(rows, CHUNK)
    widths = zip(widths_in.tolist(), widths_out.tolist(), strict=True)
    for group, (k, n) in enumerate(widths):
        end = (group + 1) * rows
        for first in range(group * rows, end, step):
            yield first, min(first + step, end), k, n


def _rows(x: Tensor) -> Tensor:
    """(R, X) with neighbouring columns side by side; a view wherever there is one."""
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _add_product(total: Tensor, a: Tensor, b: Tensor, fresh: bool) -> None:
    """total += a @ b in place, or = where `fresh`; half-precision products add up in float32."""
    if total.dtype != a.dtype:
        product = a @ b
        total.copy_(product) if fresh else total.add_(product)
        return
    # In pieces, because of a long sum MKL gives each thread a part, and the bits would depend on
    # their number. Found by scanning: up to 512 it does so at 384 alone.
    step = _even(a.shape[1], 512)
    step += 8 * (step == 384)
    for first in range(0, max(1, a.shape[1]), step):
        piece = slice(first, first + step)
        total.addmm_(a[:, piece], b[piece], beta=0 if fresh else 1)
        fresh = False


def _even(rows: int, most: int) -> int:
    """The length of equal pieces of up to `most` rows: no short one is left at the end."""
    return max(1, -(-rows // max(1, -(-rows // most))))
