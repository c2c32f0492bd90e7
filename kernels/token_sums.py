"""Sums of tokens over images in Triton: gradients of position embeddings, prefix tokens and biases.

Legend: B images, G groups, N tokens, C channels (the row stride). One program owns one token and
CHANNELS columns, and walks the images in their order: no atomics, the same bits every time.
"""

import torch
import triton
import triton.language as tl

IMAGES, CHANNELS = 16, 128


@triton.jit
def near(widths_ptr, group, limit):
    """The group's width, and the multiple of 16 up to which its columns may be loaded."""
    width = tl.minimum(tl.maximum(tl.load(widths_ptr + group), 0), limit)
    # With the exact width as a mask the compiler would load element by element, never ahead. Where
    # the limit is no multiple of 16 the promise is wrong, but then no row is aligned either, and
    # loads are element by element for that reason.
    return width, tl.multiple_of(tl.minimum(tl.cdiv(width, 16) * 16, limit), 16)


@triton.jit
def sums_kernel(
    x_ptr, live_ptr, widths_ptr, sums_ptr,
    images, groups, tokens, channels,
    IMAGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid (ceil(C / CHANNELS), N); x: (G * images, N, C); a group counts where live[g] > 0."""
    token = tl.program_id(1)
    col = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros((IMAGES, CHANNELS), tl.float32)
    for group in range(groups):
        _, width = near(widths_ptr, group, channels)
        end = tl.where(tl.load(live_ptr + group) > 0, images, 0)
        load = col < width
        for start in range(0, end, IMAGES):
            image = start + tl.arange(0, IMAGES)
            row = (group * images + image).to(tl.int64) * tokens + token
            at = x_ptr + row[:, None] * channels + col[None, :]
            mask = (image < images)[:, None] & load[None, :]
            total += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    tl.store(sums_ptr + token * channels + col, tl.sum(total, 0), mask=col < channels)


def sums(x, live, widths):
    """x (B, N, C) added over the images: (N, C), float32; groups with live[g] = 0 do not count."""
    batch, tokens, channels = x.shape
    total = x.new_empty((tokens, channels), dtype=torch.float32)
    grid = triton.cdiv(channels, CHANNELS), tokens
    with torch.cuda.device_of(x):
        sums_kernel[grid](
            x, live, widths, total, batch // len(widths), len(widths), tokens, channels,
            IMAGES=IMAGES, CHANNELS=CHANNELS, num_warps=4,
        )  # fmt: skip
    return total


def variants():
    """The part of a kernel file's variants() that belongs to this kernel."""
    for element in ("bf16", "fp32"):
        signature = {
            "x_ptr": f"*{element}", "live_ptr": "*i32", "widths_ptr": "*i32", "sums_ptr": "*fp32",
            "images": "i32", "groups": "i32", "tokens": "i32", "channels": "i32:16",
        }  # fmt: skip
        yield sums_kernel, "backward", signature, {"IMAGES": IMAGES, "CHANNELS": CHANNELS}, 4
