"""Variable-head attention of the three stages, beside every backend of SDPA and flex_attention."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernel_cases.work import (
    DTYPES,
    Call,
    Inputs,
    Stage,
    Work,
    active,
    both_ways,
    drawn,
    groups_of,
    int32,
    of_groups,
    settings,
    settled,
)
from vitresnas.ops.variable_attention import OP, variable_attention

FORCED = {
    "cpu": ("FLASH_ATTENTION", "MATH"),
    "cuda": ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"),
}


def works(batch: int, device: torch.device) -> Iterator[Work]:
    for stage, shares, dtype in settings():
        yield from attention(batch, stage, shares, dtype, device)


def attention(
    batch: int, stage: Stage, shares: str, dtype: str, device: torch.device
) -> Iterator[Work]:
    kind, size, full = DTYPES[dtype], stage.head_dim, stage.heads * stage.head_dim
    heads = of_groups(stage.heads, "heads", shares)
    widths = [size * h for h in heads]

    def draw() -> Inputs:
        return {
            "x": settled(drawn((batch, stage.tokens, 3 * full), kind, device), widths, 3),
            "dy": settled(drawn((batch, stage.tokens, full), kind, device), widths),
            "heads": int32(heads, device),
        }

    def ours(s: Inputs) -> Tensor:
        return variable_attention(s["x"], s["heads"], size)

    def dense(s: Inputs) -> Tensor:
        return plain(s["x"], size)

    def masked(s: Inputs) -> Tensor:
        y = dense(s)
        return y * active(y, widths)

    def sliced(s: Inputs) -> list[Tensor]:
        # Views, no copies: a group's heads are the first of each third.
        images = groups_of(batch, len(heads))
        parts = s["x"] if isinstance(s["x"], list) else [s["x"][at] for at in images]
        return [plain(part, size, h) for part, h in zip(parts, heads, strict=True)]

    forwards: dict[str, Call] = {
        "SDPA, full width": dense, "times masks": masked, "sliced loop": sliced,
    }  # fmt: skip
    for name in FORCED[device.type]:
        forwards[f"SDPA, full width, {name}"] = functools.partial(forced, name=name, size=size)
    if device.type == "cuda" and shares == "full":  # each shape compiles for seconds
        forwards["flex_attention, compiled"] = functools.partial(flex, size=size)
    live, element = sum(heads) / len(heads), kind.itemsize
    pairs = batch * stage.tokens**2 * size
    columns = batch * stage.tokens * live * size
    yield from both_ways(
        op=OP.name, shape=(batch, stage.tokens, stage.heads, size), dtype=dtype, draw=draw,
        ours=ours, forwards=forwards, inputs={"x": (widths, 3)}, parameters=(),
        outputs=(widths, 1), flops=(int(4 * pairs * live), 4 * pairs * stage.heads),
        # The scores are computed again: five products instead of two.
        backward_flops=int(10 * pairs * live),
        bytes=(int(element * 4 * columns), int(element * 8 * columns)),
    )  # fmt: skip


def heads_of(qkv: Tensor, size: int) -> tuple[Tensor, ...]:
    """(B, T, 3*H*D) as q, k, v (B, H, T, D), views."""
    return qkv.unflatten(-1, (3, -1, size)).permute(2, 0, 3, 1, 4).unbind(0)


def plain(qkv: Tensor, size: int, live: int | None = None) -> Tensor:
    q, k, v = (part[:, :live] for part in heads_of(qkv, size))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def forced(s: Inputs, name: str, size: int) -> Tensor:
    """One backend of SDPA; it raises where it cannot, which the result then says."""
    with sdpa_kernel(getattr(SDPBackend, name)):
        return plain(s["x"], size)


def flex(s: Inputs, size: int) -> Tensor:
    out: Tensor = compiled_flex()(*heads_of(s["x"], size))
    return out.transpose(1, 2).flatten(2)


@functools.cache
def compiled_flex() -> Any:
    from torch._functorch import config
    from torch.nn.attention.flex_attention import flex_attention

    config.donated_buffer = False  # its backward pass is called again and again
    return torch.compile(flex_attention, dynamic=False)
