"""Variable patch embedding: the trunk's features to tokens, at the head of the network."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from kernel_cases.work import (
    DTYPES,
    STAGES,
    Inputs,
    Work,
    active,
    both_ways,
    drawn,
    groups_of,
    int32,
    of_groups,
    settled,
)
from vitresnas.ops.variable_patch_embedding import OP, variable_patch_embedding

CHANNELS, PATCH = 24, 7  # of the trunk, and a patch's side on it
NAMES = ("weight", "bias", "prefix_tokens", "position_embedding")


def works(batch: int, device: torch.device) -> Iterator[Work]:
    for shares, dtype in (("mean", "bf16"), ("mean", "fp32"), ("full", "bf16")):
        yield from embedding(batch, shares, dtype, device)


def embedding(batch: int, shares: str, dtype: str, device: torch.device) -> Iterator[Work]:
    stage, kind = STAGES[0], DTYPES[dtype]
    widths, side = of_groups(stage.embed, "embed", shares), stage.grid * PATCH
    pixels, full = CHANNELS * PATCH**2, stage.embed

    def draw() -> Inputs:
        tokens = (batch, stage.tokens, full)
        return {
            "x": drawn((batch, CHANNELS, side, side), kind, device),
            "weight": drawn((full, CHANNELS, PATCH, PATCH), kind, device, pixels**-0.5),
            "bias": torch.randn(full, device=device),
            "prefix_tokens": torch.randn(1, 1, full, device=device),
            "position_embedding": torch.randn(1, stage.tokens, full, device=device),
            "dy": settled(torch.randn(tokens, device=device), widths),
            "widths": int32(widths, device),
        }

    def ours(s: Inputs) -> Tensor:
        return variable_patch_embedding(*(s[name] for name in ("x", *NAMES, "widths")))

    def dense(s: Inputs, w: int = full) -> Tensor:
        weight, bias = s["weight"][:w], s["bias"][:w].to(s["x"].dtype)
        patches = F.conv2d(s["x"], weight, bias, stride=PATCH).flatten(2).transpose(1, 2)
        prefix = s["prefix_tokens"][..., :w].expand(len(patches), -1, -1)
        position = s["position_embedding"][..., :w]
        return torch.cat((prefix, patches.to(prefix.dtype)), dim=1) + position

    def masked(s: Inputs) -> Tensor:
        y = dense(s)
        return y * active(y, widths)

    def sliced(s: Inputs) -> list[Tensor]:
        images = groups_of(batch)
        return [dense({**s, "x": s["x"][a]}, w) for a, w in zip(images, widths, strict=True)]

    rows, mean = batch * stage.grid**2, sum(widths) / len(widths)
    read = kind.itemsize * (batch * CHANNELS * side**2 + pixels * max(widths))
    stored = 4 * batch * stage.tokens * mean  # tokens are float32
    yield from both_ways(
        op=OP.name, shape=(batch, CHANNELS, side, side, full), dtype=dtype, draw=draw, ours=ours,
        forwards={"full width": dense, "times masks": masked, "sliced loop": sliced},
        inputs={"x": None}, parameters=NAMES, outputs=(widths, 1),
        flops=(int(2 * rows * pixels * mean), 2 * rows * pixels * full),
        bytes=(int(read + stored), int(2 * read + stored + 4 * pixels * full)),
    )  # fmt: skip
