"""Patch embedding in Triton; the mathematics is in vitresnas/ops/variable_patch_embedding.py.

One product per pass, its pixels gathered by pointer from a trunk of any strides; widths are read on
the device. Patches do not overlap, so the way back to the trunk is a store, never a sum.

Legend: G groups of E images, M mid channels, p patch side, S patches along a side, D = M*p*p pixels
of a patch in the order (channel, row, column), P prefix tokens, C channels, R = E*S*S patches.
"""

import torch
import triton
import triton.language as tl

from vitresnas.kernels import token_sums
from vitresnas.kernels.token_sums import near

# (BM, BN, BK), warps, stages by the size of an element. A patch's rows are runs of a few pixels,
# loaded one by one: small tiles, or their addresses spill.
TILES = {2: ((64, 64, 32), 4, 3), 4: ((64, 64, 16), 4, 3)}
SPLITS = 264  # programs that dW asks for: two per multiprocessor of an H100 or H200


@triton.jit
def _corners(row, side, patch, image_stride, row_stride, column_stride):
    """Where the patches of a group's rows begin in its trunk."""
    image = row // (side * side)
    place = row % (side * side)
    i = place // side
    j = place % side
    return image * image_stride + i * patch * row_stride + j * patch * column_stride


@triton.jit
def _pixels(d, patch, channel_stride, row_stride, column_stride):
    """Where the pixels of a patch lie behind its corner."""
    channel = d // (patch * patch)
    u = d // patch % patch
    v = d % patch
    return channel * channel_stride + u * row_stride + v * column_stride


@triton.jit
def forward_kernel(
    trunk_ptr, weight_ptr, bias_ptr, position_ptr, widths_ptr, out_ptr,
    images, side, patch, prefix, pixels, channels,
    image_stride, channel_stride, row_stride, column_stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(C / BN), ceil(R / BM), G); out: (G*E, P + S*S, C), whose prefix rows stay."""
    group = tl.program_id(2)
    n, n_near = near(widths_ptr, group, channels)
    first = tl.program_id(0) * BN
    if first >= n_near:
        return
    col = first + tl.arange(0, BN)
    column = col < n_near
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    inside = row < images * side * side
    tokens = prefix + side * side
    trunk_ptr += group.to(tl.int64) * images * image_stride
    out_ptr += group.to(tl.int64) * images * tokens * channels
    corner = _corners(row, side, patch, image_stride, row_stride, column_stride)

    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, pixels, BK):
        d = start + tl.arange(0, BK)
        there = d < pixels
        at = corner[:, None] + _pixels(d, patch, channel_stride, row_stride, column_stride)[None, :]
        trunk = tl.load(trunk_ptr + at, mask=inside[:, None] & there[None, :], other=0.0)
        weight = tl.load(
            weight_ptr + col[None, :] * pixels + d[:, None],
            mask=column[None, :] & there[:, None], other=0.0,
        )  # fmt: skip
        acc = tl.dot(trunk, weight, acc, input_precision="ieee")

    place = row % (side * side)
    token = prefix + place
    whole = inside[:, None] & column[None, :]
    acc += tl.load(bias_ptr + col, mask=column, other=0.0)[None, :]
    acc += tl.load(position_ptr + token[:, None] * channels + col[None, :], mask=whole, other=0.0)
    acc = tl.where((col < n)[None, :], acc, 0.0)
    at = out_ptr + (row // (side * side) * tokens + token)[:, None] * channels + col[None, :]
    tl.store(at, acc.to(out_ptr.dtype.element_ty), mask=whole)


@triton.jit
def prefix_kernel(
    prefix_ptr, position_ptr, widths_ptr, out_ptr, images, prefix, tokens, channels,
    BN: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(C / BN), P, G * E): the prefix tokens of one image."""
    image = tl.program_id(2)
    token = tl.program_id(1)
    n, n_near = near(widths_ptr, image // images, channels)
    col = tl.program_id(0) * BN + tl.arange(0, BN)
    column = col < n_near
    value = tl.load(prefix_ptr + token * channels + col, mask=column, other=0.0)
    value += tl.load(position_ptr + token * channels + col, mask=column, other=0.0)
    value = tl.where(col < n, value, 0.0)
    at = out_ptr + (image.to(tl.int64) * tokens + token) * channels + col
    tl.store(at, value.to(out_ptr.dtype.element_ty), mask=column)


@triton.jit
def trunk_kernel(
    dtokens_ptr, weight_ptr, widths_ptr, dtrunk_ptr,
    images, side, patch, prefix, pixels, channels,
    image_stride, channel_stride, row_stride, column_stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(D / BN), ceil(R / BM), G); dtokens: (G*E, P + S*S, C)."""
    group = tl.program_id(2)
    _, n_near = near(widths_ptr, group, channels)
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    inside = row < images * side * side
    d = tl.program_id(0) * BN + tl.arange(0, BN)
    there = d < pixels
    tokens = prefix + side * side
    dtokens_ptr += group.to(tl.int64) * images * tokens * channels
    dtrunk_ptr += group.to(tl.int64) * images * image_stride
    source = row // (side * side) * tokens + prefix + row % (side * side)

    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, n_near, BK):
        col = start + tl.arange(0, BK)
        column = col < n_near
        dtokens = tl.load(
            dtokens_ptr + source[:, None] * channels + col[None, :],
            mask=inside[:, None] & column[None, :], other=0.0,
        )  # fmt: skip
        weight = tl.load(
            weight_ptr + col[:, None] * pixels + d[None, :],
            mask=column[:, None] & there[None, :], other=0.0,
        )  # fmt: skip
        acc = tl.dot(dtokens, weight, acc, input_precision="ieee")

    corner = _corners(row, side, patch, image_stride, row_stride, column_stride)
    at = corner[:, None] + _pixels(d, patch, channel_stride, row_stride, column_stride)[None, :]
    whole = inside[:, None] & there[None, :]
    tl.store(dtrunk_ptr + at, acc.to(dtrunk_ptr.dtype.element_ty), mask=whole)


@triton.jit
def weight_kernel(
    dtokens_ptr, trunk_ptr, widths_ptr, partials_ptr,
    groups, images, side, patch, prefix, pixels, channels,
    image_stride, channel_stride, row_stride, column_stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(D / BN), ceil(C / BM), splits); partials: (splits, C, D), all written.

    BK rows are summed at a time, groups in their order, each split every so many tiles of rows.
    """
    first = tl.program_id(1) * BM
    col = first + tl.arange(0, BM)
    d = tl.program_id(0) * BN + tl.arange(0, BN)
    there = d < pixels
    pixel = _pixels(d, patch, channel_stride, row_stride, column_stride)
    tokens = prefix + side * side
    rows = images * side * side
    acc = tl.zeros((BM, BN), tl.float32)
    for group in range(groups):
        _, n_near = near(widths_ptr, group, channels)
        end = tl.where(first < n_near, rows, 0)
        column = col < n_near
        before = tl.cast(group, tl.int64) * images
        dtokens_group_ptr = dtokens_ptr + before * tokens * channels
        trunk_group_ptr = trunk_ptr + before * image_stride
        for start in range(tl.program_id(2) * BK, end, tl.num_programs(2) * BK):
            row = start + tl.arange(0, BK)
            inside = row < rows
            source = row // (side * side) * tokens + prefix + row % (side * side)
            corner = _corners(row, side, patch, image_stride, row_stride, column_stride)
            dtokens = tl.load(
                dtokens_group_ptr + source[:, None] * channels + col[None, :],
                mask=inside[:, None] & column[None, :], other=0.0,
            )  # fmt: skip
            trunk = tl.load(
                trunk_group_ptr + corner[:, None] + pixel[None, :],
                mask=inside[:, None] & there[None, :], other=0.0,
            )  # fmt: skip
            acc = tl.dot(tl.trans(dtokens), trunk, acc, input_precision="ieee")
    at = (tl.program_id(2).to(tl.int64) * channels + col[:, None]) * pixels + d[None, :]
    tl.store(partials_ptr + at, acc, mask=(col < channels)[:, None] & there[None, :])


def refuses(inputs):
    """Reasons why trunk and tokens, the first of `inputs`, cannot be handled here."""
    trunk, tokens = inputs[:2]
    dtypes = {trunk.dtype, tokens.dtype}
    if torch.float64 in dtypes:
        yield "computes in float32: use the cpp or reference backend for float64"
    halves = {torch.bfloat16, torch.float16} & dtypes
    if halves and not isinstance(forward_kernel, triton.JITFunction):
        yield f"the Triton interpreter computes {halves.pop()} wrongly: use float32, or a GPU"


def options(dtype):
    """Tile sizes, warps and stages for products of `dtype`."""
    (bm, bn, bk), warps, stages = TILES[dtype.itemsize]
    return {"BM": bm, "BN": bn, "BK": bk}, {"num_warps": warps, "num_stages": stages}


def forward(trunk, weight, bias, prefix_tokens, position_embedding, widths, dtype):
    """tokens (B, P + S*S, C) in `dtype`."""
    weight, widths = weight.contiguous(), widths.contiguous()
    bias, prefix_tokens, position_embedding = (
        t.float().contiguous() for t in (bias, prefix_tokens, position_embedding)
    )
    batch, groups, prefix = len(trunk), len(widths), prefix_tokens.shape[1]
    _, tokens, channels = position_embedding.shape
    out = trunk.new_empty((batch, tokens, channels), dtype=dtype)
    sizes, side = _sizes(trunk, weight, groups, prefix)
    tiles, launch = options(trunk.dtype)
    across, rows = triton.cdiv(channels, tiles["BN"]), batch // groups * side * side
    if batch:
        with torch.cuda.device_of(trunk):
            forward_kernel[across, triton.cdiv(rows, tiles["BM"]), groups](
                trunk, weight, bias, position_embedding, widths, out, *sizes, **tiles, **launch
            )
            if prefix:
                prefix_kernel[across, prefix, batch](
                    prefix_tokens, position_embedding, widths, out,
                    batch // groups, prefix, tokens, channels, BN=tiles["BN"], num_warps=1,
                )  # fmt: skip
    return out


def backward(dtokens, trunk, weight, widths, prefix, need_trunk):
    """dtrunk (empty where not needed), and the gradients of the parameters in float32."""
    dtokens, weight, widths = dtokens.contiguous(), weight.contiguous(), widths.contiguous()
    batch, groups, channels = len(trunk), len(widths), len(weight)
    d = dtokens.to(trunk.dtype)  # products want one type; dtokens may be float32 beside them
    # The same shape with plain strides: the gradient of an op has to say its strides in advance.
    dtrunk = trunk.new_empty(trunk.shape if need_trunk else (0,))
    sizes, side = _sizes(trunk, weight, groups, prefix)
    tiles, launch = options(trunk.dtype)
    pixels, rows = weight[0].numel(), batch // groups * side * side
    across, down = triton.cdiv(pixels, tiles["BN"]), triton.cdiv(channels, tiles["BM"])
    splits = max(1, min(SPLITS // (across * down), triton.cdiv(rows, 4 * tiles["BK"])))
    partials = trunk.new_empty((splits, *weight.shape), dtype=torch.float32)
    with torch.cuda.device_of(trunk):
        weight_kernel[across, down, splits](
            d, trunk, widths, partials, groups, *sizes, **tiles, **launch
        )
        if need_trunk and batch:
            sizes, _ = _sizes(dtrunk, weight, groups, prefix)
            trunk_kernel[across, triton.cdiv(rows, tiles["BM"]), groups](
                d, weight, widths, dtrunk, *sizes, **tiles, **launch
            )
    dposition = token_sums.sums(dtokens, widths, widths)
    # torch adds the partials in a fixed order: no atomics, the same bits every time.
    return (
        dtrunk, partials[0] if splits == 1 else partials.sum(0), dposition[prefix:].sum(0),
        dposition[None, :prefix].clone(), dposition[None],
    )  # fmt: skip


def _sizes(trunk, weight, groups, prefix):
    """images, side, patch, prefix, pixels, channels and strides, as kernels take them; and side."""
    patch = weight.shape[-1]
    side = trunk.shape[-1] // patch
    sizes = len(trunk) // groups, side, patch, prefix, weight[0].numel(), len(weight)
    return (*sizes, *trunk.stride()), side


def variants():
    """What is compiled ahead of time without a GPU; the trunk is contiguous."""
    kernels = (
        (forward_kernel, "forward"), (trunk_kernel, "backward"), (weight_kernel, "backward")
    )  # fmt: skip
    numbers = {"channels": "i32:16", "image_stride": "i32:16"}
    for element, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        tiles, launch = options(dtype)
        floats = {name: "*fp32" for name in ("bias_ptr", "position_ptr", "partials_ptr", "out_ptr")}
        floats |= {"widths_ptr": "*i32"}
        for kernel, direction in kernels:
            signature = {
                name: floats.get(name, f"*{element}")
                if name.endswith("_ptr")
                else numbers.get(name, "i32")
                for name in kernel.arg_names
                if name not in (*tiles, "column_stride")
            }
            yield kernel, direction, signature, {"column_stride": 1, **tiles}, launch
    signature = {name: "*fp32" for name in ("prefix_ptr", "position_ptr", "out_ptr")}
    signature |= {"widths_ptr": "*i32", "images": "i32", "prefix": "i32", "tokens": "i32"}
    in_order = {
        name: {**signature, "channels": "i32:16"}[name] for name in prefix_kernel.arg_names[:-1]
    }
    yield prefix_kernel, "forward", in_order, {"BN": 64}, 1
