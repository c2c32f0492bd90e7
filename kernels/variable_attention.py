"""Variable-head attention in Triton; the mathematics is in vitresnas/ops/variable_attention.py.

Tokens are one class token and a power of two of patches (1 + 256, 1 + 64, 1 + 16): patches fill
their tiles exactly and the class token is one vector beside them, as a key and as a query.

Legend: B images, H heads (most), T = N + 1 tokens, D head dimension, BD its power of two, BLOCK
rows of patches at a time. Suffix 0: the class token. The number of heads is read on the device and
programs of inactive heads exit at once; the same launch serves every sampled sub-network.
"""

import torch
import triton
import triton.language as tl

LOG2E = 1.4426950408889634
TOKENS = (17, 65, 257)
HEAD_DIMS = (16, 32, 48, 64)


@triton.jit
def _tile(ptr, row, col, stride, D: tl.constexpr, BD: tl.constexpr):
    at = ptr + row[:, None] * stride + col[None, :]
    if D == BD:
        return tl.load(at)
    else:
        return tl.load(at, mask=(col < D)[None, :], other=0.0)


@triton.jit
def _row(ptr, col, D: tl.constexpr):
    return tl.load(ptr + col, mask=col < D, other=0.0).to(tl.float32)


@triton.jit
def _save(ptr, row, col, stride, x, D: tl.constexpr):
    at = ptr + row[:, None] * stride + col[None, :]
    tl.store(at, x.to(ptr.dtype.element_ty), mask=(col < D)[None, :])


@triton.jit
def _save_row(ptr, col, x, D: tl.constexpr):
    tl.store(ptr + col, x.to(ptr.dtype.element_ty), mask=col < D)


@triton.jit
def _times(tile, row):
    """Each row of the tile times one row: what a product with a single token comes to."""
    return tl.sum(tile.to(tl.float32) * row[None, :], 1)


@triton.jit
def _total(weight, tile):
    return tl.sum(weight[:, None] * tile.to(tl.float32), 0)


@triton.jit
def forward_kernel(
    qkv_ptr, heads_ptr, out_ptr, lse_ptr, most, per_group, steep,
    N: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Grid (B*H * N / BLOCK,); a block of queries stays, keys pass by."""
    block = tl.program_id(0) % (N // BLOCK)  # blocks of a head run together and share the cache
    pair = tl.program_id(0) // (N // BLOCK)
    image = pair // most
    head = pair % most
    if head >= tl.load(heads_ptr + image // per_group):
        return
    columns = most * D
    stride = 3 * columns
    token = image.to(tl.int64) * (N + 1)
    q_ptr = qkv_ptr + token * stride + head * D
    k_ptr = q_ptr + columns
    v_ptr = k_ptr + columns
    out_ptr += token * columns + head * D
    lse_ptr += pair.to(tl.int64) * (N + 1)
    col = tl.arange(0, BD)
    row = 1 + block * BLOCK + tl.arange(0, BLOCK)
    q = _tile(q_ptr, row, col, stride, D, BD)
    k0, v0 = _row(k_ptr, col, D), _row(v_ptr, col, D)
    # The class key comes first: its score is the largest so far, its weight 1.
    top = _times(q, k0) * steep
    total = tl.full((BLOCK,), 1.0, tl.float32)
    out = tl.zeros((BLOCK, BD), tl.float32) + v0[None, :]
    for first in range(1, N + 1, BLOCK):
        key = first + tl.arange(0, BLOCK)
        k = _tile(k_ptr, key, col, stride, D, BD)
        v = _tile(v_ptr, key, col, stride, D, BD)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * steep
        higher = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        fade = tl.exp2(top - higher)
        total = total * fade + tl.sum(p, 1)
        out = tl.dot(p.to(v.dtype), v, out * fade[:, None], input_precision="ieee")
        top = higher
    _save(out_ptr, row, col, columns, out / total[:, None], D)
    tl.store(lse_ptr + row, (top + tl.log2(total)) / 1.4426950408889634)

    if block == 0:  # the class token's query, against all keys
        q0 = _row(q_ptr, col, D)
        top_0 = tl.sum(q0 * k0) * steep
        total_0 = 1.0
        out_0 = v0
        for first in range(1, N + 1, BLOCK):
            key = first + tl.arange(0, BLOCK)
            k = _tile(k_ptr, key, col, stride, D, BD)
            v = _tile(v_ptr, key, col, stride, D, BD)
            s_0 = _times(k, q0) * steep
            higher_0 = tl.maximum(top_0, tl.max(s_0))
            p_0 = tl.exp2(s_0 - higher_0)
            fade_0 = tl.exp2(top_0 - higher_0)
            total_0 = total_0 * fade_0 + tl.sum(p_0)
            out_0 = out_0 * fade_0 + _total(p_0, v)
            top_0 = higher_0
        _save_row(out_ptr, col, out_0 / total_0, D)
        tl.store(lse_ptr, (top_0 + tl.log2(total_0)) / 1.4426950408889634)


@triton.jit
def dq_kernel(
    dout_ptr, qkv_ptr, out_ptr, lse_ptr, heads_ptr, dqkv_ptr, delta_ptr, most, per_group, scale,
    N: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Grid (B*H * N / BLOCK,); a block of queries stays, keys pass by. Leaves delta behind."""
    block = tl.program_id(0) % (N // BLOCK)  # blocks of a head run together and share the cache
    pair = tl.program_id(0) // (N // BLOCK)
    image = pair // most
    head = pair % most
    if head >= tl.load(heads_ptr + image // per_group):
        return
    columns = most * D
    stride = 3 * columns
    steep = scale * 1.4426950408889634
    token = image.to(tl.int64) * (N + 1)
    q_ptr = qkv_ptr + token * stride + head * D
    k_ptr = q_ptr + columns
    v_ptr = k_ptr + columns
    dqkv_ptr += token * stride + head * D
    dout_ptr += token * columns + head * D
    out_ptr += token * columns + head * D
    lse_ptr += pair.to(tl.int64) * (N + 1)
    delta_ptr += pair.to(tl.int64) * (N + 1)
    col = tl.arange(0, BD)
    row = 1 + block * BLOCK + tl.arange(0, BLOCK)
    q = _tile(q_ptr, row, col, stride, D, BD)
    do = _tile(dout_ptr, row, col, columns, D, BD)
    out = _tile(out_ptr, row, col, columns, D, BD)
    delta = tl.sum(do.to(tl.float32) * out.to(tl.float32), 1)
    base = tl.load(lse_ptr + row) * 1.4426950408889634
    tl.store(delta_ptr + row, delta)
    k0, v0 = _row(k_ptr, col, D), _row(v_ptr, col, D)
    ds0 = tl.exp2(_times(q, k0) * steep - base) * (_times(do, v0) - delta)
    dq = ds0[:, None] * k0[None, :]
    for first in range(1, N + 1, BLOCK):
        key = first + tl.arange(0, BLOCK)
        k = _tile(k_ptr, key, col, stride, D, BD)
        v = _tile(v_ptr, key, col, stride, D, BD)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        dp = tl.dot(do, tl.trans(v), input_precision="ieee")
        ds = tl.exp2(s * steep - base[:, None]) * (dp - delta[:, None])
        dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee")
    _save(dqkv_ptr, row, col, stride, dq * scale, D)

    if block == 0:  # the class token's query, against all keys
        q0, do0 = _row(q_ptr, col, D), _row(dout_ptr, col, D)
        delta0 = tl.sum(do0 * _row(out_ptr, col, D))
        base0 = tl.load(lse_ptr) * 1.4426950408889634
        tl.store(delta_ptr, delta0)
        dq0 = tl.exp2(tl.sum(q0 * k0) * steep - base0) * (tl.sum(do0 * v0) - delta0) * k0
        for first in range(1, N + 1, BLOCK):
            key = first + tl.arange(0, BLOCK)
            k = _tile(k_ptr, key, col, stride, D, BD)
            v = _tile(v_ptr, key, col, stride, D, BD)
            ds_0 = tl.exp2(_times(k, q0) * steep - base0) * (_times(v, do0) - delta0)
            dq0 += _total(ds_0, k)
        _save_row(dqkv_ptr, col, dq0 * scale, D)


@triton.jit
def dkdv_kernel(
    dout_ptr, qkv_ptr, lse_ptr, delta_ptr, heads_ptr, dqkv_ptr, most, per_group, scale,
    N: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Grid (B*H * N / BLOCK,); a block of keys and values stays, queries pass by."""
    block = tl.program_id(0) % (N // BLOCK)  # blocks of a head run together and share the cache
    pair = tl.program_id(0) // (N // BLOCK)
    image = pair // most
    head = pair % most
    if head >= tl.load(heads_ptr + image // per_group):
        return
    columns = most * D
    stride = 3 * columns
    steep = scale * 1.4426950408889634
    token = image.to(tl.int64) * (N + 1)
    q_ptr = qkv_ptr + token * stride + head * D
    k_ptr = q_ptr + columns
    v_ptr = k_ptr + columns
    dk_ptr = dqkv_ptr + token * stride + head * D + columns
    dv_ptr = dk_ptr + columns
    dout_ptr += token * columns + head * D
    lse_ptr += pair.to(tl.int64) * (N + 1)
    delta_ptr += pair.to(tl.int64) * (N + 1)
    col = tl.arange(0, BD)
    key = 1 + block * BLOCK + tl.arange(0, BLOCK)
    k = _tile(k_ptr, key, col, stride, D, BD)
    v = _tile(v_ptr, key, col, stride, D, BD)
    q0, do0 = _row(q_ptr, col, D), _row(dout_ptr, col, D)
    base0, delta0 = tl.load(lse_ptr) * 1.4426950408889634, tl.load(delta_ptr)
    p_0 = tl.exp2(_times(k, q0) * steep - base0)
    dv = p_0[:, None] * do0[None, :]
    dk = (p_0 * (_times(v, do0) - delta0))[:, None] * q0[None, :]
    for first in range(1, N + 1, BLOCK):
        row = first + tl.arange(0, BLOCK)
        q = _tile(q_ptr, row, col, stride, D, BD)
        do = _tile(dout_ptr, row, col, columns, D, BD)
        base = tl.load(lse_ptr + row) * 1.4426950408889634
        delta = tl.load(delta_ptr + row)
        s = tl.dot(k, tl.trans(q), input_precision="ieee")
        dp = tl.dot(v, tl.trans(do), input_precision="ieee")
        p = tl.exp2(s * steep - base[None, :])
        ds = p * (dp - delta[None, :])
        dv += tl.dot(p.to(do.dtype), do, input_precision="ieee")
        dk += tl.dot(ds.to(q.dtype), q, input_precision="ieee")
    _save(dk_ptr, key, col, stride, dk * scale, D)
    _save(dv_ptr, key, col, stride, dv, D)

    if block == 0:  # the class token's key and value, for all queries
        k0, v0 = _row(k_ptr, col, D), _row(v_ptr, col, D)
        p00 = tl.exp2(tl.sum(q0 * k0) * steep - base0)
        dv0 = p00 * do0
        dk0 = p00 * (tl.sum(do0 * v0) - delta0) * q0
        for first in range(1, N + 1, BLOCK):
            row = first + tl.arange(0, BLOCK)
            q = _tile(q_ptr, row, col, stride, D, BD)
            do = _tile(dout_ptr, row, col, columns, D, BD)
            p0 = tl.exp2(_times(q, k0) * steep - tl.load(lse_ptr + row) * 1.4426950408889634)
            dv0 += _total(p0, do)
            dk0 += _total(p0 * (_times(do, v0) - tl.load(delta_ptr + row)), q)
        _save_row(dk_ptr, col, dk0 * scale, D)
        _save_row(dv_ptr, col, dv0, D)


@triton.jit
def backward_kernel(
    dout_ptr, qkv_ptr, out_ptr, lse_ptr, heads_ptr, dqkv_ptr, most, per_group, scale,
    N: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Grid (B*H,); a whole head at once: five products, one exponential per score."""
    pair = tl.program_id(0)
    image = pair // most
    head = pair % most
    if head >= tl.load(heads_ptr + image // per_group):
        return
    columns = most * D
    stride = 3 * columns
    steep = scale * 1.4426950408889634
    token = image.to(tl.int64) * (N + 1)
    q_ptr = qkv_ptr + token * stride + head * D
    k_ptr = q_ptr + columns
    v_ptr = k_ptr + columns
    dq_ptr = dqkv_ptr + token * stride + head * D
    dk_ptr = dq_ptr + columns
    dv_ptr = dk_ptr + columns
    dout_ptr += token * columns + head * D
    out_ptr += token * columns + head * D
    lse_ptr += pair.to(tl.int64) * (N + 1)
    col = tl.arange(0, BD)
    row = 1 + tl.arange(0, N)
    q = _tile(q_ptr, row, col, stride, D, BD)
    k = _tile(k_ptr, row, col, stride, D, BD)
    v = _tile(v_ptr, row, col, stride, D, BD)
    do = _tile(dout_ptr, row, col, columns, D, BD)
    out = _tile(out_ptr, row, col, columns, D, BD)
    q0, k0, v0 = _row(q_ptr, col, D), _row(k_ptr, col, D), _row(v_ptr, col, D)
    do0 = _row(dout_ptr, col, D)
    delta = tl.sum(do.to(tl.float32) * out.to(tl.float32), 1)
    delta0 = tl.sum(do0 * _row(out_ptr, col, D))
    base = tl.load(lse_ptr + row) * 1.4426950408889634
    base0 = tl.load(lse_ptr) * 1.4426950408889634

    # Suffix 0 behind: all queries on the class key; _0: the class query on all keys; 00: on itself.
    p0 = tl.exp2(_times(q, k0) * steep - base)
    ds0 = p0 * (_times(do, v0) - delta)
    p_0 = tl.exp2(_times(k, q0) * steep - base0)
    ds_0 = p_0 * (_times(v, do0) - delta0)
    p00 = tl.exp2(tl.sum(q0 * k0) * steep - base0)
    ds00 = p00 * (tl.sum(do0 * v0) - delta0)
    _save_row(dq_ptr, col, (_total(ds_0, k) + ds00 * k0) * scale, D)
    _save_row(dk_ptr, col, (_total(ds0, q) + ds00 * q0) * scale, D)
    _save_row(dv_ptr, col, _total(p0, do) + p00 * do0, D)

    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    p = tl.exp2(s * steep - base[:, None])
    dv = tl.dot(tl.trans(p.to(do.dtype)), do, input_precision="ieee")
    _save(dv_ptr, row, col, stride, dv + p_0[:, None] * do0[None, :], D)
    dp = tl.dot(do, tl.trans(v), input_precision="ieee")
    ds = (p * (dp - delta[:, None])).to(q.dtype)
    dk = tl.dot(tl.trans(ds), q, input_precision="ieee") + ds_0[:, None] * q0[None, :]
    _save(dk_ptr, row, col, stride, dk * scale, D)
    dq = tl.dot(ds, k, input_precision="ieee") + ds0[:, None] * k0[None, :]
    _save(dq_ptr, row, col, stride, dq * scale, D)


def tiles(patches, dtype):
    """Forward and backward (BLOCK, warps); backward, one block of all is one program per head."""
    if dtype == torch.bfloat16 or dtype == torch.float16:
        return {
            16: ((16, 1), (16, 2)), 64: ((64, 4), (64, 4)), 256: ((64, 4), (64, 4)),
        }[patches]  # fmt: skip
    # Without tensor cores a product keeps its operands in registers: smaller tiles.
    return {
        16: ((16, 2), (16, 4)), 64: ((32, 4), (32, 4)), 256: ((32, 4), (32, 4)),
    }[patches]  # fmt: skip


def refuses(inputs):
    """Reasons why qkv, first and seen as (B, T, 3, H, D), cannot be handled here."""
    qkv_BTPHD = inputs[0]
    tokens, head_dim = qkv_BTPHD.shape[1], qkv_BTPHD.shape[-1]
    if tokens not in TOKENS:
        yield f"is made for {TOKENS} tokens, a class token and a power of two, not for {tokens}"
    if head_dim not in HEAD_DIMS:
        yield f"is made for head dimensions {HEAD_DIMS}, not for {head_dim}"
    if qkv_BTPHD.dtype == torch.float64:
        yield "computes in float32: use the cpp or reference backend for float64"
    if qkv_BTPHD.dtype != torch.float32 and not isinstance(forward_kernel, triton.JITFunction):
        yield f"the Triton interpreter computes {qkv_BTPHD.dtype} wrongly: use float32, or a GPU"


def _sizes(qkv, heads, head_dim):
    images, tokens = qkv.shape[:2]
    most = qkv.shape[2] // (3 * head_dim)
    constants = {"N": tokens - 1, "D": head_dim, "BD": triton.next_power_of_2(head_dim)}
    return images, most, images // heads.numel(), constants


def forward(qkv, heads, head_dim, scale):
    """out (B, T, H*D), lse (B, H, T) in float32."""
    images, most, per_group, constants = _sizes(qkv, heads, head_dim)
    out = qkv.new_empty(images, qkv.shape[1], most * head_dim)
    lse = qkv.new_empty(images, most, qkv.shape[1], dtype=torch.float32)
    if images:
        (block, warps), _ = tiles(constants["N"], qkv.dtype)
        with torch.cuda.device_of(qkv):
            forward_kernel[(images * most * (constants["N"] // block),)](
                qkv, heads, out, lse, most, per_group, scale * LOG2E,
                BLOCK=block, **constants, num_warps=warps,
            )  # fmt: skip
    return out, lse


def backward(dout, qkv, out, lse, heads, head_dim, scale):
    """dqkv, like qkv."""
    images, most, per_group, constants = _sizes(qkv, heads, head_dim)
    dqkv = torch.empty_like(qkv)
    _, (block, warps) = tiles(constants["N"], qkv.dtype)
    shared = most, per_group, scale
    with torch.cuda.device_of(qkv):
        if not images:
            pass
        elif block == constants["N"]:
            backward_kernel[(images * most,)](
                dout, qkv, out, lse, heads, dqkv, *shared, **constants, num_warps=warps
            )
        else:
            delta = torch.empty_like(lse)
            grid = (images * most * (constants["N"] // block),)
            constants["BLOCK"] = block
            dq_kernel[grid](
                dout, qkv, out, lse, heads, dqkv, delta, *shared, **constants, num_warps=warps
            )
            dkdv_kernel[grid](
                dout, qkv, lse, delta, heads, dqkv, *shared, **constants, num_warps=warps
            )
    return dqkv


def variants():
    """What is compiled ahead of time without a GPU; see vitresnas/ops/ahead_of_time.py."""
    numbers = {"most": "i32", "per_group": "i32", "steep": "fp32", "scale": "fp32",
               "heads_ptr": "*i32", "lse_ptr": "*fp32", "delta_ptr": "*fp32"}  # fmt: skip
    for element, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for tokens, head_dim in ((257, 32), (65, 48), (17, 64)):
            patches, padded = tokens - 1, triton.next_power_of_2(head_dim)
            constants = {"N": patches, "D": head_dim, "BD": padded}
            (block, warps), (back, back_warps) = tiles(patches, dtype)
            kernels = [(forward_kernel, "forward", {"BLOCK": block, **constants}, warps)]
            if back == patches:
                kernels.append((backward_kernel, "backward", constants, back_warps))
            else:
                for kernel in (dq_kernel, dkdv_kernel):
                    kernels.append((kernel, "backward", {"BLOCK": back, **constants}, back_warps))
            for kernel, direction, fixed, threads in kernels:
                signature = {
                    name: numbers.get(name, f"*{element}")
                    for name in kernel.arg_names
                    if name not in fixed
                }
                yield kernel, direction, signature, fixed, threads
