"""Residual spatial reduction in Triton; the mathematics is in vitresnas/ops/variable_reduction.py.

Three implicit matrix products that gather their rows by pointer; with PREFIX each is the product of
the prefix rows instead (one tap, no grid). Widths are read on the device: the grid covers the full
width and tiles beyond a group's width return at once.

Legend: G groups of E images, P prefix tokens, S patches along a side, C input and K output
channels, k and n a group's widths, R = E*S*S/4 rows of a group (prefix: E*P); T taps, 9 or 1.
The weight is (K, T, C): channels_last memory. Which input meets which tap: csrc/index/reduction.h.
"""

import torch
import triton
import triton.language as tl

from vitresnas.kernels import token_sums
from vitresnas.kernels.token_sums import near

# (BM, BN, BK), warps, stages: rows, columns and summed elements of a tile. The forward kernel adds
# position and skip to its sums, and spills with the larger tile. Float32 products run without
# tensor cores, so that they are exact, and need small tiles to keep sums in registers.
TILES = {
    ("forward", 2): ((64, 128, 64), 4, 4),
    ("backward", 2): ((128, 128, 64), 8, 3),
    ("forward", 4): ((64, 64, 16), 4, 3),
    ("backward", 4): ((64, 64, 16), 4, 3),
}
SPLITS = 264  # programs that dW asks for: two per multiprocessor of an H100 or H200


@triton.jit
def _rows(first, images, prefix, half, PREFIX: tl.constexpr, BM: tl.constexpr):
    """Which rows exist, and each one's image of the group, place within the image, i and j."""
    row = first + tl.arange(0, BM)
    per_image = prefix if PREFIX else half * half
    inside = row < images * per_image
    place = row % per_image
    return inside, row // per_image, place, place // half, place % half


@triton.jit
def forward_kernel(
    y_ptr, x_ptr, weight_ptr, bias_ptr, position_ptr, widths_in_ptr, widths_out_ptr, out_ptr,
    images, side, prefix, channels, outputs,
    PREFIX: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(K / BN), ceil(R / BM), G); x, y: (G*E, P + S*S, C); out: (G*E, P + S*S/4, K)."""
    group = tl.program_id(2)
    k, k_near = near(widths_in_ptr, group, channels)
    n, n_near = near(widths_out_ptr, group, outputs)
    first = tl.program_id(0) * BN
    if first >= n_near:
        return
    TAPS: tl.constexpr = 1 if PREFIX else 9
    half = side // 2
    inside, image, place, i, j = _rows(tl.program_id(1) * BM, images, prefix, half, PREFIX, BM)
    col = first + tl.arange(0, BN)
    column = col < n_near
    # To the group's images; within them 32-bit offsets do, at half the registers.
    before = group.to(tl.int64) * images
    tokens = prefix + side * side
    y_ptr += before * tokens * channels
    x_ptr += before * tokens * channels
    out_ptr += before * (prefix + half * half) * outputs

    # The token under tap 0 is at (2i - 1, 2j - 1); only the first row and column can miss.
    corner = place if PREFIX else prefix + (2 * i - 1) * side + 2 * j - 1
    corner = image * tokens + corner
    steps = tl.cdiv(k_near, BK)
    acc = tl.zeros((BM, BN), tl.float32)
    for step in range(TAPS * steps):
        tap = step // steps
        c = (step - tap * steps) * BK + tl.arange(0, BK)
        summed = c < k_near
        token = corner
        hit = inside
        if not PREFIX:
            down = tap // 3
            right = tap - 3 * down
            hit = inside & (2 * i + down > 0) & (2 * j + right > 0)
            token = corner + down * side + right
        y = tl.load(
            y_ptr + token[:, None] * channels + c[None, :],
            mask=hit[:, None] & summed[None, :], other=0.0,
        )  # fmt: skip
        weight = tl.load(
            weight_ptr + (col[None, :] * TAPS + tap) * channels + c[:, None],
            mask=column[None, :] & summed[:, None], other=0.0,
        )  # fmt: skip
        acc = tl.dot(y, weight, acc, input_precision="ieee")

    acc += tl.load(bias_ptr + col, mask=column, other=0.0).to(tl.float32)[None, :]
    whole = inside[:, None] & column[None, :]
    skip = inside[:, None] & (col < k_near)[None, :]
    if PREFIX:
        same = x_ptr + corner[:, None] * channels + col[None, :]
        acc += tl.load(same, mask=skip, other=0.0).to(tl.float32)
    else:
        position = position_ptr + place[:, None] * outputs + col[None, :]
        acc += tl.load(position, mask=whole, other=0.0).to(tl.float32)
        # A loop, not four lines: one tile of x at a time beside the sums, or registers spill.
        for quarter in tl.range(4, num_stages=1):
            token = corner + (1 + quarter // 2) * side + 1 + quarter % 2
            pool = x_ptr + token[:, None] * channels + col[None, :]
            acc += 0.25 * tl.load(pool, mask=skip, other=0.0).to(tl.float32)
    live = tl.where(k > 0, n, 0)
    acc = tl.where((col < live)[None, :], acc, 0.0)
    row = image * (prefix + half * half) + (place if PREFIX else prefix + place)
    at = out_ptr + row[:, None] * outputs + col[None, :]
    tl.store(at, acc.to(out_ptr.dtype.element_ty), mask=whole)


@triton.jit
def inputs_kernel(
    d_ptr, dout_ptr, weight_ptr, widths_in_ptr, widths_out_ptr, dx_ptr, dy_ptr,
    images, side, prefix, channels, outputs,
    PREFIX: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(C / BN), ceil(R / BM), 4 * G) by parity class, or (.., .., G) for the prefix.

    d: dout (G*E, P + S*S/4, K) in the type that products run in; dx, dy: (G*E, P + S*S, C).
    """
    CLASSES: tl.constexpr = 1 if PREFIX else 4
    TAPS: tl.constexpr = 1 if PREFIX else 9
    group = tl.program_id(2) // CLASSES
    k, k_near = near(widths_in_ptr, group, channels)
    _, n_near = near(widths_out_ptr, group, outputs)
    first = tl.program_id(0) * BN
    if first >= k_near:
        return
    half = side // 2
    inside, image, place, i, j = _rows(tl.program_id(1) * BM, images, prefix, half, PREFIX, BM)
    col = first + tl.arange(0, BN)
    column = col < k_near
    # Inputs (2i + p, 2j + q); the class of four taps is started first, it takes longest.
    parity = 3 - tl.program_id(2) % 4
    p = parity // 2
    q = parity % 2
    # To the group's images; within them 32-bit offsets do, at half the registers.
    before = group.to(tl.int64) * images
    d_ptr += before * (prefix + half * half) * outputs
    dout_ptr += before * (prefix + half * half) * outputs
    dx_ptr += before * (prefix + side * side) * channels
    dy_ptr += before * (prefix + side * side) * channels

    source = image * (prefix + half * half) + (place if PREFIX else prefix + place)
    steps = tl.cdiv(n_near, BK)
    count = 1 if PREFIX else (1 + p) * (1 + q)
    acc = tl.zeros((BM, BN), tl.float32)
    for step in range(count * steps):
        turn = step // steps
        o = (step - turn * steps) * BK + tl.arange(0, BK)
        summed = o < n_near
        token = source
        hit = inside
        tap = 0
        if not PREFIX:
            # Output i + down met this input under the tap 1 + p - 2 * down.
            down = turn // (1 + q)
            right = turn - down * (1 + q)
            tap = 3 * (1 + p - 2 * down) + 1 + q - 2 * right
            hit = inside & (i + down < half) & (j + right < half)
            token = source + down * half + right
        d = tl.load(
            d_ptr + token[:, None] * outputs + o[None, :],
            mask=hit[:, None] & summed[None, :], other=0.0,
        )  # fmt: skip
        weight = tl.load(
            weight_ptr + (o[:, None] * TAPS + tap) * channels + col[None, :],
            mask=summed[:, None] & column[None, :], other=0.0,
        )  # fmt: skip
        acc = tl.dot(d, weight, acc, input_precision="ieee")

    whole = inside[:, None] & column[None, :]
    active = (col < k)[None, :]
    target = place if PREFIX else prefix + (2 * i + p) * side + 2 * j + q
    target = (image * (prefix + side * side) + target)[:, None] * channels + col[None, :]
    acc = tl.where(active, acc, 0.0)
    tl.store(dy_ptr + target, acc.to(dy_ptr.dtype.element_ty), mask=whole)
    # The skip's gradient on the way: these very tokens and columns, a quarter of their output's.
    at = dout_ptr + source[:, None] * outputs + col[None, :]
    share = 1.0 if PREFIX else 0.25
    dx = share * tl.load(at, mask=whole & (col < outputs)[None, :], other=0.0).to(tl.float32)
    dx = tl.where(active, dx, 0.0)
    tl.store(dx_ptr + target, dx.to(dx_ptr.dtype.element_ty), mask=whole)


@triton.jit
def weight_kernel(
    d_ptr, y_ptr, widths_in_ptr, widths_out_ptr, partials_ptr,
    groups, images, side, prefix, channels, outputs,
    PREFIX: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(C / BN), T * ceil(K / BM), splits); partials: (splits, K, T, C), all written.

    BK rows are summed at a time, groups in their order, each split every so many tiles of rows.
    """
    TAPS: tl.constexpr = 1 if PREFIX else 9
    tap = tl.program_id(1) % TAPS
    down = tap // 3
    right = tap % 3
    out_first = tl.program_id(1) // TAPS * BM
    in_first = tl.program_id(0) * BN
    out_col = out_first + tl.arange(0, BM)
    in_col = in_first + tl.arange(0, BN)
    half = side // 2
    rows = images * (prefix if PREFIX else half * half)
    acc = tl.zeros((BM, BN), tl.float32)
    for group in range(groups):
        _, k_near = near(widths_in_ptr, group, channels)
        _, n_near = near(widths_out_ptr, group, outputs)
        reached = (out_first < n_near) & (in_first < k_near)
        end = tl.where(reached, rows, 0)
        out_load = (out_col < n_near)[None, :]
        in_load = (in_col < k_near)[None, :]
        before = tl.cast(group, tl.int64) * images
        d_group_ptr = d_ptr + before * (prefix + half * half) * outputs
        y_group_ptr = y_ptr + before * (prefix + side * side) * channels
        for start in range(tl.program_id(2) * BK, end, tl.num_programs(2) * BK):
            row = start + tl.arange(0, BK)
            per_image = prefix if PREFIX else half * half
            inside = row < rows
            place = row % per_image
            image = row // per_image
            source = image * (prefix + half * half) + place
            token = image * (prefix + side * side) + place
            hit = inside
            if not PREFIX:
                i = place // half
                j = place % half
                source += prefix
                hit = inside & (2 * i + down > 0) & (2 * j + right > 0)
                token = image * (prefix + side * side) + prefix
                token += (2 * i + down - 1) * side + 2 * j + right - 1
            d = tl.load(
                d_group_ptr + source[:, None] * outputs + out_col[None, :],
                mask=inside[:, None] & out_load, other=0.0,
            )  # fmt: skip
            y = tl.load(
                y_group_ptr + token[:, None] * channels + in_col[None, :],
                mask=hit[:, None] & in_load, other=0.0,
            )  # fmt: skip
            acc = tl.dot(tl.trans(d), y, acc, input_precision="ieee")
    at = (tl.program_id(2).to(tl.int64) * outputs + out_col[:, None]) * TAPS + tap
    whole = (out_col < outputs)[:, None] & (in_col < channels)[None, :]
    tl.store(partials_ptr + at * channels + in_col[None, :], acc, mask=whole)


def refuses(inputs):
    """Reasons why x and y, the first of `inputs`, cannot be handled here."""
    x, y = inputs[:2]
    if torch.float64 in (x.dtype, y.dtype):
        yield "computes in float32: use the cpp or reference backend for float64"
    halves = {torch.bfloat16, torch.float16} & {x.dtype, y.dtype}
    if halves and not isinstance(forward_kernel, triton.JITFunction):
        yield f"the Triton interpreter computes {halves.pop()} wrongly: use float32, or a GPU"


def options(direction, dtype):
    """Tile sizes, warps and stages for products of `dtype`."""
    (bm, bn, bk), warps, stages = TILES[direction, dtype.itemsize]
    return {"BM": bm, "BN": bn, "BK": bk}, {"num_warps": warps, "num_stages": stages}


def forward(
    x, y, convolution_weight, convolution_bias, position_embedding, prefix_weight, prefix_bias,
    widths_in, widths_out, grid, prefix,
):  # fmt: skip
    """out (B, P + S*S/4, K) in x's type."""
    x, y, position_embedding = x.contiguous(), y.contiguous(), position_embedding.contiguous()
    widths_in, widths_out = widths_in.contiguous(), widths_out.contiguous()
    batch, groups, (outputs, channels) = len(x), len(widths_in), prefix_weight.shape
    out = x.new_empty(batch, prefix + grid * grid // 4, outputs)
    tiles, launch = options("forward", y.dtype)
    weight = convolution_weight.contiguous(memory_format=torch.channels_last)
    paths = (
        (False, grid * grid // 4, weight, convolution_bias.contiguous()),
        (True, prefix, prefix_weight.contiguous(), prefix_bias.contiguous()),
    )
    for is_prefix, per_image, matrix, bias in paths:
        rows = batch // groups * per_image
        if not rows:
            continue
        where = triton.cdiv(outputs, tiles["BN"]), triton.cdiv(rows, tiles["BM"]), groups
        with torch.cuda.device_of(x):
            forward_kernel[where](
                y, x, matrix, bias, position_embedding, widths_in, widths_out, out,
                batch // groups, grid, prefix, channels, outputs,
                PREFIX=is_prefix, **tiles, **launch,
            )  # fmt: skip
    return out


def backward(
    dout, y, convolution_weight, prefix_weight, widths_in, widths_out, grid, prefix
):  # fmt: skip
    """dx, dy, and the gradients of the parameters in float32, all written whole."""
    dout, y = dout.contiguous(), y.contiguous()
    widths_in, widths_out = widths_in.contiguous(), widths_out.contiguous()
    batch, groups, (outputs, channels) = len(y), len(widths_in), prefix_weight.shape
    images = batch // groups
    d = dout.to(y.dtype)  # products want one type; dout may be float32 beside them
    dx, dy = y.new_empty(y.shape, dtype=dout.dtype), torch.empty_like(y)
    tiles, launch = options("backward", y.dtype)
    weight = convolution_weight.contiguous(memory_format=torch.channels_last)
    gradients = []
    paths = (
        (False, grid * grid // 4, 9, weight),
        (True, prefix, 1, prefix_weight.contiguous()),
    )
    for is_prefix, per_image, taps, matrix in paths:
        rows = images * per_image
        across = triton.cdiv(channels, tiles["BN"])
        down = taps * triton.cdiv(outputs, tiles["BM"])
        splits = max(1, min(SPLITS // (across * down), triton.cdiv(rows, 4 * tiles["BK"])))
        partials = y.new_empty((splits, outputs, taps, channels), dtype=torch.float32)
        sizes = images, grid, prefix, channels, outputs
        with torch.cuda.device_of(y):
            weight_kernel[across, down, splits](
                d, y, widths_in, widths_out, partials, groups, *sizes,
                PREFIX=is_prefix, **tiles, **launch,
            )  # fmt: skip
            if rows:
                classes = groups if is_prefix else 4 * groups
                inputs_kernel[across, triton.cdiv(rows, tiles["BM"]), classes](
                    d, dout, matrix, widths_in, widths_out, dx, dy, *sizes,
                    PREFIX=is_prefix, **tiles, **launch,
                )  # fmt: skip
        # torch adds the partials in a fixed order: no atomics, the same bits every time.
        gradients.append(partials[0] if splits == 1 else partials.sum(0))
    dweight_KSSC = gradients[0].unflatten(1, (3, 3))
    dtokens = token_sums.sums(dout, widths_in, widths_out)
    return (
        dx, dy, dweight_KSSC.permute(0, 3, 1, 2), dtokens[prefix:].sum(0),
        dtokens[None, prefix:].clone(), gradients[1].view(outputs, channels),
        dtokens[:prefix].sum(0),
    )  # fmt: skip


def variants():
    """What is compiled ahead of time without a GPU: (kernel, direction, signature, ...)."""
    whole = {"channels": "i32:16", "outputs": "i32:16"}
    floats = ("bias_ptr", "position_ptr", "partials_ptr")
    kernels = (
        (forward_kernel, "forward"), (inputs_kernel, "backward"), (weight_kernel, "backward")
    )  # fmt: skip
    for element, dtype, stream in (
        ("bf16", torch.bfloat16, "bf16"),
        ("bf16", torch.bfloat16, "fp32"),
        ("fp32", torch.float32, "fp32"),
    ):
        pointers = {name: f"*{stream}" for name in ("x_ptr", "out_ptr", "dout_ptr", "dx_ptr")}
        pointers |= {name: "*fp32" for name in floats}
        pointers |= {"widths_in_ptr": "*i32", "widths_out_ptr": "*i32"}
        for kernel, direction in kernels:
            if kernel is weight_kernel and stream != element:
                continue  # it does not touch the residual stream
            tiles, launch = options(direction, dtype)
            for is_prefix in (False, True):
                signature = {
                    name: pointers.get(name, f"*{element}")
                    if name.endswith("_ptr")
                    else whole.get(name, "i32")
                    for name in kernel.arg_names
                    if name not in ("PREFIX", *tiles)
                }
                yield kernel, direction, signature, {"PREFIX": is_prefix, **tiles}, launch
    yield from token_sums.variants()
