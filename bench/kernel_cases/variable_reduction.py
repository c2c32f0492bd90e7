"""Variable reduction: from one stage to the next, half the grid and more channels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from kernel_cases.work import (
    DTYPES,
    STAGES,
    Inputs,
    Stage,
    Work,
    active,
    both_ways,
    drawn,
    int32,
    of_groups,
    settled,
    split_of,
)
from vitresnas.models.reduction import as_image, reduction_skip
from vitresnas.ops.variable_reduction import OP, variable_reduction

NAMES = (
    "convolution_weight", "convolution_bias", "position_embedding", "prefix_weight", "prefix_bias"
)  # fmt: skip


def works(batch: int, device: torch.device) -> Iterator[Work]:
    for before, after in pairwise(STAGES):
        for shares, dtype in (("mean", "bf16"), ("mean", "fp32"), ("full", "bf16")):
            yield from reduction(batch, before, after, shares, dtype, device)


def reduction(
    batch: int, before: Stage, after: Stage, shares: str, dtype: str, device: torch.device
) -> Iterator[Work]:
    kind, inner, outer = DTYPES[dtype], before.embed, after.embed
    inputs, outputs = (of_groups(width, "embed", shares) for width in (inner, outer))

    def draw() -> Inputs:
        shape, patches = (batch, before.tokens, inner), after.tokens - 1
        convolution = drawn((outer, inner, 3, 3), kind, device, (9 * inner) ** -0.5)
        return {
            "x": settled(torch.randn(shape, device=device), inputs),  # the residual stream
            "y": settled(drawn(shape, kind, device), inputs),
            "convolution_weight": convolution.contiguous(memory_format=torch.channels_last),
            "convolution_bias": torch.randn(outer, device=device),
            "position_embedding": torch.randn(1, patches, outer, device=device),
            "prefix_weight": drawn((outer, inner), kind, device, inner**-0.5),
            "prefix_bias": torch.randn(outer, device=device),
            "dy": settled(torch.randn(batch, after.tokens, outer, device=device), outputs),
            "widths_in": int32(inputs, device),
            "widths_out": int32(outputs, device),
        }

    def ours(s: Inputs) -> Tensor:
        given = (s[name] for name in ("x", "y", *NAMES, "widths_in", "widths_out"))
        return variable_reduction(*given, grid=before.grid, prefix=1)

    def part(s: Inputs, x: Tensor, y: Tensor, k: int = inner, n: int = outer) -> Tensor:
        bias, prefix_bias = (
            s[f"{name}_bias"][:n].to(y.dtype) for name in ("convolution", "prefix")
        )
        image, weight = as_image(y[:, 1:], before.grid), s["convolution_weight"][:n, :k]
        patches = F.conv2d(image, weight, bias, stride=2, padding=1).flatten(2).transpose(1, 2)
        patches = patches + s["position_embedding"][..., :n]
        prefix = F.linear(y[:, :1], s["prefix_weight"][:n, :k], prefix_bias).to(patches.dtype)
        return torch.cat((prefix, patches), dim=1) + reduction_skip(x, n, before.grid, 1)

    def dense(s: Inputs) -> Tensor:
        return part(s, s["x"], s["y"])

    def masked(s: Inputs) -> Tensor:
        mask = active(s["x"], inputs)
        out = part(s, s["x"] * mask, s["y"] * mask)
        return out * active(out, outputs)

    def sliced(s: Inputs) -> list[Tensor]:
        xs, ys = (split_of(inputs)(t) if isinstance(t, Tensor) else t for t in (s["x"], s["y"]))
        return [part(s, *given) for given in zip(xs, ys, inputs, outputs, strict=True)]

    groups, patches = len(inputs), batch * after.grid**2
    taps = 9 * patches + batch  # rows of weight that meet a row of y, over the class token's too
    cells = sum(k * n for k, n in zip(inputs, outputs, strict=True)) / groups
    k, n = sum(inputs) / groups, sum(outputs) / groups
    streams = batch * (before.tokens * k * (4 + kind.itemsize) + after.tokens * n * 4)
    weights = 10 * max(inputs) * max(outputs) * kind.itemsize
    yield from both_ways(
        op=OP.name, shape=(batch, before.tokens, inner, outer), dtype=dtype, draw=draw, ours=ours,
        forwards={"full width": dense, "times masks": masked, "sliced loop": sliced},
        inputs={"x": (inputs, 1), "y": (inputs, 1)}, parameters=NAMES, outputs=(outputs, 1),
        flops=(int(2 * taps * cells), 2 * taps * inner * outer),
        bytes=(
            int(streams + weights),
            int(streams + batch * before.tokens * k * kind.itemsize + weights + 40 * inner * outer),
        ),
    )  # fmt: skip
