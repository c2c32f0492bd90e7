"""The variable-width linear in Triton; the mathematics is in vitresnas/ops/variable_linear.py.

Legend: G groups, R rows of a group, K inputs (the row stride of the weight), N outputs, S segments
of `part` = N / S columns; k and n are a group's widths, near_k and near_n the next multiples of 16.
BM rows by BN columns make a tile, BK is the step of the sum. Widths are read on the device and the
grid is that of full widths, so the same launch (and the same CUDA graph) serves every sampled
sub-network; a program whose tile nobody reaches returns at once.

The columns of all segments that count are numbered as one flat range, S * near_n long, so that only
its last tile is partly empty. Sums run to near_k and near_n: what lies between is zero on one side.
Those ends must be *known* to be multiples of 16, or the compiler copies element by element and
nothing is asynchronous.
"""

import torch
import triton
import triton.language as tl

# (BM, BN, BK, warps, stages): start values from register and memory arithmetic, see
# docs/ops/variable_linear.md; not yet tuned on a GPU.
SMALL, LARGE = (64, 128, 64, 4, 4), (128, 128, 64, 8, 3)  # by the number of rows
# Of the weight's gradient BM is of N, BN of K, BK of rows; converted: dy is scaled or cast first,
# in registers, and steps of 64 rows would spill.
WEIGHT, WEIGHT_CONVERTED = (128, 128, 64, 8, 3), (128, 128, 32, 8, 3)
EXACT = (64, 64, 16, 8, 3)  # float32 without tensor cores
# Without known multiples of 16 every element needs an address of its own, and larger tiles spill.
UNALIGNED, UNALIGNED_EXACT = (64, 64, 32, 8, 3), (32, 64, 16, 8, 3)
TINY = (32, 32, 32, 4, 1)  # what the interpreter can afford
MULTIPROCESSORS = 132  # of an H100 or H200
SQRT_HALF = tl.constexpr(0.7071067811865476)
PEAK = tl.constexpr(0.3989422804014327)  # of the normal density


@triton.jit
def _width(widths_ptr, group, room, ALIGNED: tl.constexpr):
    """A group's width, and up to where its columns are zero."""
    width = tl.minimum(tl.maximum(tl.load(widths_ptr + group), 0), room)
    near = tl.cdiv(width, 16) * 16
    if ALIGNED:
        near = tl.multiple_of(near, 16)
    else:
        near = tl.minimum(near, room)
    return width, near


@triton.jit
def _columns(flat, near, part, SEGMENTS: tl.constexpr, ALIGNED: tl.constexpr):
    """Where the flat columns lie in memory, and which they are within their segment."""
    if SEGMENTS == 1:
        return flat, flat
    else:
        near = tl.maximum(near, 1)
        inner = flat % near
        column = flat // near * part + inner
        if ALIGNED:
            column = tl.max_contiguous(tl.multiple_of(column, [16]), [16])
        return column, inner


@triton.jit
def forward_kernel(
    x_ptr, weight_ptr, bias_ptr, widths_in_ptr, widths_out_ptr, residual_ptr, scale_ptr, y_ptr,
    pre_ptr, rows, inputs, outputs, part, x_stride, per_image,
    SEGMENTS: tl.constexpr, GELU: tl.constexpr, KEEP: tl.constexpr, RESIDUAL: tl.constexpr,
    SCALE: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(N / BN) * ceil(R / BM) * G); x (G*R, K), y and its like (G*R, N)."""
    column_tiles = tl.cdiv(outputs, BN)  # fastest: a strip of x stays in the cache, weights too
    row_tiles = tl.cdiv(rows, BM)
    strip = tl.program_id(0) // column_tiles
    group = strip // row_tiles
    first_row = strip % row_tiles * BM
    first = tl.program_id(0) % column_tiles * BN
    k, near_k = _width(widths_in_ptr, group, inputs, ALIGNED)
    n, near_n = _width(widths_out_ptr, group, part, ALIGNED)
    idle = first >= SEGMENTS * near_n
    if not RESIDUAL:
        idle = idle | (k == 0)
    if idle:
        return

    local = tl.arange(0, BM)
    inside = first_row + local < rows
    local = tl.minimum(first_row + local, rows - 1) - first_row  # no mask on rows: read twice
    base = group.to(tl.int64) * rows + first_row
    flat = first + tl.arange(0, BN)
    stored = flat < SEGMENTS * near_n
    column, inner = _columns(flat, near_n, part, SEGMENTS, ALIGNED)
    source = tl.where(stored, column, 0)
    step = tl.arange(0, BK)

    x_at = x_ptr + base * x_stride + local[:, None] * x_stride + step[None, :]
    weight_at = weight_ptr + source[None, :] * inputs + step[:, None]
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, near_k, BK):
        near = step < near_k - start
        x = tl.load(x_at, mask=near[None, :], other=0.0)
        weight = tl.load(weight_at, mask=near[:, None], other=0.0)
        total = tl.dot(x, weight, total, input_precision=PRECISION)
        x_at += BK
        weight_at += BK

    value = total + tl.load(bias_ptr + source)[None, :]
    counts = (stored & (inner < n))[None, :]
    whole = inside[:, None] & stored[None, :]
    at = base * outputs + local[:, None] * outputs + column[None, :]
    if GELU:
        if KEEP:
            pre = tl.where(counts, value, 0.0)
            tl.store(pre_ptr + at, pre.to(pre_ptr.dtype.element_ty), mask=whole)
        value = 0.5 * value * (1.0 + tl.erf(value * SQRT_HALF))
    if RESIDUAL:
        if SCALE:
            value *= tl.load(scale_ptr + (group * rows + first_row + local) // per_image)[:, None]
        beside = tl.load(residual_ptr + at, mask=whole, other=0.0).to(tl.float32)
        value = beside + tl.where(k > 0, value, 0.0)
    tl.store(y_ptr + at, tl.where(counts, value, 0.0).to(y_ptr.dtype.element_ty), mask=whole)


@triton.jit
def backward_x_kernel(
    weight_ptr, dy_ptr, widths_in_ptr, widths_out_ptr, scale_ptr, pre_ptr, dx_ptr,
    rows, inputs, part, dy_stride, per_image,
    SEGMENTS: tl.constexpr, GELU: tl.constexpr, SCALE: tl.constexpr, ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(K / BN) * ceil(R / BM) * G); dy (G*R, N), weight (N, K), dx, pre (G*R, K)."""
    column_tiles = tl.cdiv(inputs, BN)
    row_tiles = tl.cdiv(rows, BM)
    strip = tl.program_id(0) // column_tiles
    group = strip // row_tiles
    first_row = strip % row_tiles * BM
    first = tl.program_id(0) % column_tiles * BN
    k, near_k = _width(widths_in_ptr, group, inputs, ALIGNED)
    _, near_n = _width(widths_out_ptr, group, part, ALIGNED)
    if first >= near_k:
        return

    local = tl.arange(0, BM)
    inside = first_row + local < rows
    local = tl.minimum(first_row + local, rows - 1) - first_row
    base = group.to(tl.int64) * rows + first_row
    column = first + tl.arange(0, BN)
    stored = column < near_k
    step = tl.arange(0, BK)

    dy_at = dy_ptr + base * dy_stride + local[:, None] * dy_stride
    weight_at = weight_ptr + column[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, SEGMENTS * near_n, BK):
        near = start + step < SEGMENTS * near_n
        source, _inner = _columns(start + step, near_n, part, SEGMENTS, ALIGNED)
        dy = tl.load(dy_at + source[None, :], mask=near[None, :], other=0.0)
        there = near[:, None] & stored[None, :]
        weight = tl.load(weight_at + source[:, None] * inputs, mask=there, other=0.0)
        total = tl.dot(dy.to(weight.dtype), weight, total, input_precision=PRECISION)

    if SCALE:
        total *= tl.load(scale_ptr + (group * rows + first_row + local) // per_image)[:, None]
    at = base * inputs + local[:, None] * inputs + column[None, :]
    whole = inside[:, None] & stored[None, :]
    if GELU:
        pre = tl.load(pre_ptr + at, mask=whole, other=0.0).to(tl.float32)
        share = 0.5 * (1.0 + tl.erf(pre * SQRT_HALF))
        total *= share + pre * PEAK * tl.exp(-0.5 * pre * pre)
    # Without columns of dy there is nothing behind pre either: it may hold NaN.
    dx = tl.where(((column < k) & (near_n > 0))[None, :], total, 0.0)
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=whole)


@triton.jit
def _sum_rows(
    x_ptr, dy_ptr, widths_in_ptr, widths_out_ptr, scale_ptr, first_n, first_k, chunk,
    groups, rows, inputs, outputs, part, x_stride, dy_stride, per_image, rows_per_chunk,
    BIAS: tl.constexpr, SCALE: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One chunk of every group's rows, in the order of groups: dy^T x and, if BIAS, dy^T 1."""
    row_n = first_n + tl.arange(0, BM)
    column_k = first_k + tl.arange(0, BN)
    inner = row_n % part
    inner = tl.where(row_n < outputs, inner, part)
    least = tl.min(inner, 0)
    step = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    sums = tl.zeros((BM, 16), tl.float32)
    first_row = chunk * rows_per_chunk
    for group in range(0, groups):
        _, near_k = _width(widths_in_ptr, group, inputs, ALIGNED)
        _, near_n = _width(widths_out_ptr, group, part, ALIGNED)
        reached = (first_k < near_k) & (least < near_n)
        last_row = tl.where(reached, tl.minimum(first_row + rows_per_chunk, rows), first_row)
        there_n, there_k = inner < near_n, column_k < near_k
        if ALIGNED:
            there_n = tl.max_constancy(there_n, [16])
        for start in range(first_row, last_row, BK):
            base = (group * rows + start).to(tl.int64)
            inside = (start + step < last_row)[:, None]
            dy_at = dy_ptr + base * dy_stride + step[:, None] * dy_stride + row_n[None, :]
            x_at = x_ptr + base * x_stride + step[:, None] * x_stride + column_k[None, :]
            x = tl.load(x_at, mask=inside & there_k[None, :], other=0.0)
            dy = tl.load(dy_at, mask=inside & there_n[None, :], other=0.0)
            if SCALE:
                image = tl.minimum(group * rows + start + step, groups * rows - 1) // per_image
                dy = dy.to(tl.float32) * tl.load(scale_ptr + image)[:, None]
            dy = tl.trans(dy.to(x.dtype))
            total = tl.dot(dy, x, total, input_precision=PRECISION)
            if BIAS:  # a product with ones: no reduction across threads in every step
                ones = tl.full((BK, 16), 1.0, x.dtype)
                sums = tl.dot(dy, ones, sums, input_precision=PRECISION)
    return total, sums


@triton.jit
def backward_weight_kernel(
    x_ptr, dy_ptr, widths_in_ptr, widths_out_ptr, scale_ptr, dweight_ptr, dbias_ptr,
    groups, rows, inputs, outputs, part, x_stride, dy_stride, per_image, rows_per_chunk,
    SCALE: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(K / BN) * ceil(N / BM) * chunks); dweight (chunks, N, K), dbias (chunks, N).

    Every element is written, zeros where no group reaches.
    """
    column_tiles = tl.cdiv(inputs, BN)
    tiles = column_tiles * tl.cdiv(outputs, BM)
    chunk = tl.program_id(0) // tiles
    first_n = tl.program_id(0) % tiles // column_tiles * BM
    first_k = tl.program_id(0) % column_tiles * BN
    row_n = first_n + tl.arange(0, BM)
    if first_k == 0:
        total, sums = _sum_rows(
            x_ptr, dy_ptr, widths_in_ptr, widths_out_ptr, scale_ptr, first_n, first_k, chunk,
            groups, rows, inputs, outputs, part, x_stride, dy_stride, per_image, rows_per_chunk,
            True, SCALE, ALIGNED, PRECISION, BM, BN, BK,
        )  # fmt: skip
        dbias = tl.sum(sums, 1) * 0.0625  # sixteen equal columns: exact
        tl.store(dbias_ptr + chunk * outputs + row_n, dbias, mask=row_n < outputs)
    else:
        total, _ = _sum_rows(
            x_ptr, dy_ptr, widths_in_ptr, widths_out_ptr, scale_ptr, first_n, first_k, chunk,
            groups, rows, inputs, outputs, part, x_stride, dy_stride, per_image, rows_per_chunk,
            False, SCALE, ALIGNED, PRECISION, BM, BN, BK,
        )  # fmt: skip
    column_k = first_k + tl.arange(0, BN)
    at = (chunk.to(tl.int64) * outputs + row_n)[:, None] * inputs + column_k[None, :]
    whole = (row_n < outputs)[:, None] & (column_k < inputs)[None, :]
    tl.store(dweight_ptr + at, total, mask=whole)


def tile(dtype, rows, promised):
    """(BM, BN, BK, warps, stages) of forward and dx for a group of `rows` rows."""
    return _only_tile(dtype, promised) or (LARGE if rows >= 8192 else SMALL)


def weight_tile(dtype, converted, promised):
    """(BM, BN, BK, warps, stages) of the weight's gradient."""
    return _only_tile(dtype, promised) or (WEIGHT_CONVERTED if converted else WEIGHT)


def _only_tile(dtype, promised):
    """The tile where there is no choice. promised: rows and segments end at multiples of 16."""
    if interpreted():
        return TINY
    if dtype == torch.float32:
        return EXACT if promised else UNALIGNED_EXACT
    return None if promised else UNALIGNED


def chunks_of(rows, outputs, inputs, shape):
    """Into how many chunks the rows of a group go for the weight's gradient to fill the GPU."""
    tiles = triton.cdiv(outputs, shape[0]) * triton.cdiv(inputs, shape[1])
    longest = triton.cdiv(rows, 4 * shape[2])  # a chunk is worth at least four steps
    return max(1, min(2 * MULTIPROCESSORS // tiles, longest))


def interpreted():
    return not isinstance(forward_kernel, triton.JITFunction)


def refuses(inputs):
    """Reasons why x, the first of `inputs`, cannot be handled here."""
    x = inputs[0]
    if x.dtype == torch.float64:
        yield "computes in float32: use the cpp or reference backend for float64"
    if x.dtype != torch.float32 and interpreted():
        yield f"the Triton interpreter computes {x.dtype} wrongly: use float32, or a GPU"


def forward(
    x, weight, bias, widths_in, widths_out, segments, gelu, keep, residual, scale, dtype
):  # fmt: skip
    """y (B, ..., N) in `dtype`; with `gelu` and `keep` the pre-activation, else an empty one."""
    x_RK, weight, bias = _rows(x), weight.contiguous(), bias.float().contiguous()
    outputs, inputs = weight.shape
    groups, part = widths_in.numel(), outputs // segments
    y = x.new_empty((*x.shape[:-1], outputs), dtype=dtype)
    pre = x.new_empty(y.shape if gelu and keep else 0)
    rows = len(x_RK) // groups
    if rows:
        promised = aligned(inputs, part)
        bm, bn, bk, warps, stages = tile(x.dtype, rows, promised)
        with torch.cuda.device_of(x):
            forward_kernel[(triton.cdiv(outputs, bn) * triton.cdiv(rows, bm) * groups,)](
                x_RK, weight, bias, widths_in.contiguous(), widths_out.contiguous(),
                y if residual is None else residual.contiguous(),
                bias if scale is None else scale.contiguous(), y, pre if gelu and keep else y,
                rows, inputs, outputs, part, x_RK.stride(0), max(1, x.shape[1:-1].numel()),
                segments, gelu, keep, residual is not None, scale is not None,
                promised, precision(), bm, bn, bk,
                num_warps=warps, num_stages=stages,
            )  # fmt: skip
    return y, pre


def backward(dy, x, weight, widths_in, widths_out, segments, pre, scale):
    """dx (B, ..., K), dweight (N, K), dbias (N,)."""
    x_RK, dy_RN, weight = _rows(x), _rows(dy), weight.contiguous()
    widths_in, widths_out = widths_in.contiguous(), widths_out.contiguous()
    outputs, inputs = weight.shape
    groups, part = widths_in.numel(), outputs // segments
    rows, per_image = len(x_RK) // groups, max(1, x.shape[1:-1].numel())
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    promised = aligned(inputs, part)
    shape = weight_tile(x.dtype, scale is not None or dy.dtype != x.dtype, promised)
    chunks = chunks_of(rows, outputs, inputs, shape)
    dweight = x.new_empty((chunks, outputs, inputs), dtype=torch.float32)
    dbias = x.new_empty((chunks, outputs), dtype=torch.float32)
    scales = dbias if scale is None else scale.contiguous()
    flags = (scale is not None, promised, precision())
    with torch.cuda.device_of(x):
        bm, bn, bk, warps, stages = shape
        grid = triton.cdiv(inputs, bn) * triton.cdiv(outputs, bm) * chunks
        backward_weight_kernel[(grid,)](
            x_RK, dy_RN, widths_in, widths_out, scales, dweight, dbias, groups, rows, inputs,
            outputs, part, x_RK.stride(0), dy_RN.stride(0), per_image, triton.cdiv(rows, chunks),
            *flags, bm, bn, bk, num_warps=warps, num_stages=stages,
        )  # fmt: skip
        bm, bn, bk, warps, stages = tile(x.dtype, rows, promised)
        if rows:
            backward_x_kernel[(triton.cdiv(inputs, bn) * triton.cdiv(rows, bm) * groups,)](
                weight, dy_RN, widths_in, widths_out, scales,
                dx if pre is None else pre.contiguous(), dx, rows, inputs, part,
                dy_RN.stride(0), per_image, segments, pre is not None, *flags, bm, bn, bk,
                num_warps=warps, num_stages=stages,
            )  # fmt: skip
    if chunks == 1:
        return dx, dweight[0], dbias[0]
    # torch adds the chunks in a fixed order: no atomics, the same bits every time.
    return dx, dweight.sum(0), dbias.sum(0)


def _rows(x):
    """(R, X) with neighbouring columns side by side; a view wherever there is one."""
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def aligned(inputs, part):
    """True where no multiple of 16 leads out of a row or a segment: what promises rest on."""
    return inputs % 16 == 0 and part % 16 == 0


def precision():
    """Of float32 products: exact, unless torch.set_float32_matmul_precision allows tf32."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def variants():
    """What is compiled ahead of time: (kernel, direction, signature, constants, options).

    For each kernel the uses of a block: qkv; the MLP's first half; attention's projection and the
    MLP's second half, with a float32 residual stream and with one of the compute type. Then the use
    of a classifier, whose width need not be a multiple of 16.
    """
    for dtype, tiles in ((torch.float32, (EXACT,)), (torch.bfloat16, (SMALL, LARGE))):
        half = dtype != torch.float32
        for shape in tiles:
            for segments, gelu, add, wide in (
                (3, False, False, ()),
                (1, True, False, ()),
                (1, False, True, ()),
                *[(1, False, True, ("y_ptr", "residual_ptr"))] * half,
            ):
                yield _variant(
                    forward_kernel, "forward", dtype, shape, wide,
                    SEGMENTS=segments, GELU=gelu, KEEP=gelu, RESIDUAL=add, SCALE=add,
                )  # fmt: skip
            for segments, gelu, wide in (
                (3, False, ()),
                (1, True, ()),
                *[(1, True, ("dy_ptr",))] * half,
            ):
                yield _variant(
                    backward_x_kernel, "backward", dtype, shape, wide,
                    SEGMENTS=segments, GELU=gelu, SCALE=gelu,
                )  # fmt: skip
        for scale, cast in ((False, False), (True, False), *[(False, True), (True, True)] * half):
            shape = WEIGHT_CONVERTED if scale or cast else WEIGHT
            yield _variant(
                backward_weight_kernel, "backward", dtype, shape if half else EXACT,
                ("dy_ptr",) * cast, SCALE=scale,
            )  # fmt: skip
        shape = UNALIGNED if half else UNALIGNED_EXACT
        plain = {"SCALE": False, "ALIGNED": False}
        one = {"SEGMENTS": 1, "GELU": False, **plain}
        yield _variant(forward_kernel, "forward", dtype, shape, KEEP=False, RESIDUAL=False, **one)
        yield _variant(backward_x_kernel, "backward", dtype, shape, **one)
        yield _variant(backward_weight_kernel, "backward", dtype, shape, **plain)


def _variant(kernel, direction, dtype, shape, wide=(), **constants):
    element = "*fp32" if dtype == torch.float32 else "*bf16"
    names = ("x_ptr", "y_ptr", "dy_ptr", "dx_ptr", "weight_ptr", "residual_ptr", "pre_ptr")
    types = {name: "*fp32" if name in wide else element for name in names}
    types |= {"widths_in_ptr": "*i32", "widths_out_ptr": "*i32"}
    numbers = ("groups", "rows", "per_image", "rows_per_chunk")
    bm, bn, bk, warps, stages = shape
    constants = {"ALIGNED": True, **constants, "PRECISION": "ieee", "BM": bm, "BN": bn, "BK": bk}
    number = "i32:16" if constants["ALIGNED"] else "i32"
    signature = {
        name: types.get(name) or ("i32" if name in numbers else number)
        if not name.endswith("_ptr") or name in types
        else "*fp32"
        for name in kernel.arg_names
        if name not in constants
    }
    return kernel, direction, signature, constants, {"num_warps": warps, "num_stages": stages}
