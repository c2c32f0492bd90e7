"""Masked layer normalisation in Triton; the mathematics is in vitresnas/ops/masked_layer_norm.py.

Legend: G groups, R rows of a group, C channels (the row stride), P chunks of a group's rows.
ROWS rows and BLOCK >= C columns make a tile; widths are read on the device, so that the same launch
(and the same CUDA graph) serves every sampled sub-network. PADDED: columns beyond the next multiple
of 16 are not written.
"""

import torch
import triton
import triton.language as tl

MAX_CHANNELS = 8192  # a row lives in the registers of one program
TILE = 2048  # elements of a tile: 16 per thread and tensor with four warps
BACKWARD_PROGRAMS = 264  # two per multiprocessor of an H100 or H200


@triton.jit
def _active_columns(widths_ptr, group, channels, col):
    """The group's width, which columns are active, and which may be loaded."""
    width = tl.minimum(tl.maximum(tl.load(widths_ptr + group), 0), channels)
    # Loads reach the next multiple of 16 (masked off again in registers): with the exact width as
    # load mask the compiler would have to load element by element.
    padded = tl.multiple_of(tl.cdiv(width, 16) * 16, 16)
    return width, col < width, (col < padded) & (col < channels)


@triton.jit
def forward_kernel(
    x_ptr, weight_ptr, bias_ptr, widths_ptr, y_ptr, mean_ptr, rstd_ptr,
    rows, channels, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(R / ROWS), G); x, y: (G*R, C); mean, rstd: (G*R,)."""
    group = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, BLOCK)
    inside = row < rows
    width, active, near = _active_columns(widths_ptr, group, channels, col)
    active = active[None, :] & inside[:, None]
    near = near[None, :] & inside[:, None]
    count = tl.maximum(width, 1).to(tl.float32)

    row = group.to(tl.int64) * rows + row
    at = row[:, None] * channels + col[None, :]
    x = tl.load(x_ptr + at, mask=near, other=0.0).to(tl.float32)
    x = tl.where(active, x, 0.0)
    mean = tl.sum(x, 1) / count
    centred = tl.where(active, x - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / count + eps)

    weight = tl.load(weight_ptr + col, mask=col < channels, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + col, mask=col < channels, other=0.0).to(tl.float32)
    y = tl.where(active, centred * rstd[:, None] * weight[None, :] + bias[None, :], 0.0)
    written = near if PADDED else inside[:, None] & (col < channels)[None, :]
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=written)
    tl.store(mean_ptr + row, mean, mask=inside)
    tl.store(rstd_ptr + row, rstd, mask=inside)


@triton.jit
def backward_kernel(
    dy_ptr, x_ptr, mean_ptr, rstd_ptr, weight_ptr, widths_ptr, residual_ptr, skip_widths_ptr,
    dx_ptr, partials_ptr, rows, channels, rows_per_chunk,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Grid (P, G); dy, x, residual, dx: (G*R, C); partials: (G*P, 2, C), of weight and of bias."""
    chunk = tl.program_id(0)
    group = tl.program_id(1)
    col = tl.arange(0, BLOCK)
    width, active, near = _active_columns(widths_ptr, group, channels, col)
    count = tl.maximum(width, 1).to(tl.float32)
    weight = tl.load(weight_ptr + col, mask=near, other=0.0).to(tl.float32)
    weight = tl.where(active, weight, 0.0)
    passed, reach = active, near  # columns of the residual, and those that may be loaded
    if RESIDUAL:
        _, passed, reach = _active_columns(skip_widths_ptr, group, channels, col)
        reach = reach | near
    written = reach if PADDED else col < channels

    dweight = tl.zeros((ROWS, BLOCK), tl.float32)
    dbias = tl.zeros((ROWS, BLOCK), tl.float32)
    first = chunk * rows_per_chunk
    last = tl.minimum(first + rows_per_chunk, rows)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = row < last
        row = group.to(tl.int64) * rows + row
        at = row[:, None] * channels + col[None, :]
        load = near[None, :] & inside[:, None]
        keep = active[None, :] & inside[:, None]
        x = tl.load(x_ptr + at, mask=load, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + at, mask=load, other=0.0).to(tl.float32)
        mean = tl.load(mean_ptr + row, mask=inside, other=0.0)
        rstd = tl.load(rstd_ptr + row, mask=inside, other=0.0)
        dy = tl.where(keep, dy, 0.0)
        xhat = tl.where(keep, (x - mean[:, None]) * rstd[:, None], 0.0)
        scaled = dy * weight[None, :]
        m1 = tl.sum(scaled, 1) / count
        m2 = tl.sum(scaled * xhat, 1) / count
        dx = rstd[:, None] * (scaled - m1[:, None] - xhat * m2[:, None])
        dx = tl.where(keep, dx, 0.0)
        if RESIDUAL:
            load = reach[None, :] & inside[:, None]
            residual = tl.load(residual_ptr + at, mask=load, other=0.0).to(tl.float32)
            dx += tl.where(passed[None, :], residual, 0.0)
        store = written[None, :] & inside[:, None]
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=store)
        dweight += dy * xhat
        dbias += dy

    part = partials_ptr + (group * tl.num_programs(0) + chunk).to(tl.int64) * 2 * channels
    tl.store(part + col, tl.sum(dweight, 0), mask=col < channels)
    tl.store(part + channels + col, tl.sum(dbias, 0), mask=col < channels)


def tile(channels):
    """(ROWS, BLOCK, warps) for rows of `channels` elements."""
    block = max(16, triton.next_power_of_2(channels))
    return max(1, TILE // block), block, 4 if block <= TILE else 8


def refuses(inputs):
    """Reasons why x (and y or dy, in a type of its own) cannot be handled here."""
    x = inputs[0]
    if x.dtype == torch.float64:
        yield "computes in float32: use the cpp or reference backend for float64"
    if x.shape[-1] > MAX_CHANNELS:
        yield f"holds rows of up to {MAX_CHANNELS} channels, x has {x.shape[-1]}"
    for tensor in inputs[:2]:
        if tensor.dtype != torch.float32 and not isinstance(forward_kernel, triton.JITFunction):
            yield f"the Triton interpreter computes {tensor.dtype} wrongly: use float32, or a GPU"
            break


def forward(x, weight, bias, widths, eps, dtype=None, padded=False):
    """y (B, ..., C), mean and rstd (B, ...) in float32."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    channels, groups = x.shape[-1], widths.numel()
    y = torch.empty_like(x, dtype=dtype)
    mean = x.new_empty(x.shape[:-1], dtype=torch.float32)
    rstd = torch.empty_like(mean)
    rows = mean.numel() // groups
    if rows:
        rows_per_tile, block, warps = tile(channels)
        with torch.cuda.device_of(x):
            forward_kernel[(triton.cdiv(rows, rows_per_tile), groups)](
                x, weight, bias, widths, y, mean, rstd, rows, channels, eps,
                ROWS=rows_per_tile, BLOCK=block, PADDED=padded, num_warps=warps,
            )  # fmt: skip
    return y, mean, rstd


def backward(
    dy, x, mean, rstd, weight, widths, residual=None, skip_widths=None, padded=False
):  # fmt: skip
    """dx (B, ..., C) with the residual's gradient in it, dweight and dbias (C,)."""
    dy, x, weight = dy.contiguous(), x.contiguous(), weight.contiguous()
    residual = None if residual is None else residual.contiguous()
    channels, groups = x.shape[-1], widths.numel()
    rows = mean.numel() // groups
    rows_per_tile, block, warps = tile(channels)
    chunks = max(1, min(triton.cdiv(rows, rows_per_tile), BACKWARD_PROGRAMS // groups))
    dx = torch.empty_like(x)
    partials = x.new_empty((groups * chunks, 2, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        backward_kernel[(chunks, groups)](
            dy, x, mean, rstd, weight, widths, residual, skip_widths, dx, partials,
            rows, channels, triton.cdiv(rows, chunks),
            ROWS=rows_per_tile, BLOCK=block, PADDED=padded, RESIDUAL=residual is not None,
            num_warps=warps,
        )  # fmt: skip
    # torch adds the partials in a fixed order: no atomics, the same bits every time.
    return dx, partials[:, 0].sum(0).to(weight.dtype), partials[:, 1].sum(0).to(weight.dtype)


def variants():
    """What is compiled ahead of time: (kernel, direction, signature, constants, warps).

    x and y in one type, and a bfloat16 y beside a float32 residual stream.
    """
    numbers = {"rows": "i32", "channels": "i32:16", "rows_per_chunk": "i32", "eps": "fp32"}
    for stream, inner, fused in (
        ("fp32", "fp32", False),
        ("bf16", "bf16", False),
        ("fp32", "bf16", True),
    ):
        pointers = {name: f"*{stream}" for name in ("x_ptr", "dx_ptr", "residual_ptr")}
        pointers |= {name: f"*{inner}" for name in ("y_ptr", "dy_ptr")}
        pointers |= {name: "*i32" for name in ("widths_ptr", "skip_widths_ptr")}
        for channels in (256, 512, 1024):
            rows, block, warps = tile(channels)
            constants = {"ROWS": rows, "BLOCK": block, "PADDED": fused}
            for kernel, direction in ((forward_kernel, "forward"), (backward_kernel, "backward")):
                if kernel is backward_kernel:
                    constants = {**constants, "RESIDUAL": fused}
                signature = {
                    name: numbers.get(name) or pointers.get(name, "*fp32")
                    for name in kernel.arg_names
                    if name not in constants
                }
                yield kernel, direction, signature, constants, warps
