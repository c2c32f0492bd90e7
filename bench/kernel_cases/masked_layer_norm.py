"""Masked LayerNorm: the three stages of ViT-ResNAS-Tiny's space at full and at mean width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernel_cases.work import (
    DTYPES,
    Call,
    Inputs,
    Work,
    gradients,
    groups_of,
    in_float64,
    make_sets,
    widths_tensor,
)
from vitresnas.ops import masked_layer_norm as mln

EPS = 1e-6
GROUPS = 2
STAGES = ((257, 256), (65, 512), (17, 1024))  # tokens, channels
MEAN = 25 / 32  # of the widths in the search space


def works(batch: int, device: torch.device) -> Iterator[Work]:
    for tokens, channels in STAGES:
        for width in (channels, int(channels * MEAN)):
            for dtype in DTYPES:
                yield from both_directions((batch, tokens, channels), width, dtype, device)


def both_directions(
    shape: tuple[int, int, int], width: int, dtype: str, device: torch.device
) -> Iterator[Work]:
    kind, channels = DTYPES[dtype], shape[-1]
    element = kind.itemsize * shape[0] * shape[1]

    def draw() -> Inputs:
        x, dy = (torch.randn(shape, device=device).to(kind) for _ in range(2))
        weight, bias = (torch.randn(channels, device=device) for _ in range(2))
        widths = widths_tensor([width] * GROUPS, device)
        _, mean, rstd = mln._forward_reference(x, weight, bias, widths, EPS)
        return dict(x=x, dy=dy, weight=weight, bias=bias, widths=widths, mean=mean, rstd=rstd)

    sets = make_sets(draw, 3 * element * channels)
    common: dict[str, Any] = dict(
        op=mln.OP.name, shape=shape, dtype=dtype, active_share=width / channels, sets=sets
    )
    forwards = forward_baselines(width)
    sliced = forwards["F.layer_norm, sliced loop"]

    def true_gradients(s: Inputs) -> Sequence[Tensor]:
        return gradients(sliced, ("x", "weight", "bias"), in_float64(s))

    # Zeros are stored beyond the width too.
    yield Work(
        direction="forward", bytes=element * (width + channels), ours=forward,
        baselines=forwards, truth=lambda s: [sliced(in_float64(s))], **common,
    )  # fmt: skip
    yield Work(
        direction="backward", bytes=element * (2 * width + channels), ours=backward,
        baselines=backward_baselines(width), truth=true_gradients, **common,
    )  # fmt: skip


def forward(s: Inputs) -> Sequence[Tensor]:
    arguments = (s["x"], s["weight"], s["bias"], s["widths"], EPS)
    return [torch.ops.vitresnas.masked_layer_norm(*arguments)[0]]


def backward(s: Inputs) -> Sequence[Tensor]:
    names = ("dy", "x", "mean", "rstd", "weight", "widths")
    gradients: Sequence[Tensor] = torch.ops.vitresnas.masked_layer_norm_backward(
        *(s[name] for name in names)
    )
    return gradients


def forward_baselines(width: int) -> dict[str, Call]:
    def full(s: Inputs) -> Tensor:
        kind = s["x"].dtype
        shape = s["weight"].shape
        return F.layer_norm(s["x"], shape, s["weight"].to(kind), s["bias"].to(kind), EPS)

    def sliced(s: Inputs) -> Tensor:
        y, kind = torch.zeros_like(s["x"]), s["x"].dtype
        weight, bias = s["weight"][:width].to(kind), s["bias"][:width].to(kind)
        for at in groups_of(len(y), GROUPS):
            y[at, ..., :width] = F.layer_norm(s["x"][at, ..., :width], (width,), weight, bias, EPS)
        return y

    return {"F.layer_norm, full width": full, "F.layer_norm, sliced loop": sliced}


def backward_baselines(width: int) -> dict[str, Call]:
    native = torch.ops.aten.native_layer_norm_backward
    every = (True, True, True)

    def statistics(s: Inputs) -> tuple[Tensor, Tensor]:
        # Torch's own backward wants them in x's type on the CPU.
        kind = s["x"].dtype if s["x"].is_cpu else s["mean"].dtype
        return s["mean"][..., None].to(kind), s["rstd"][..., None].to(kind)

    def full(s: Inputs) -> Any:
        weight = s["weight"].to(s["x"].dtype)
        return native(s["dy"], s["x"], weight.shape, *statistics(s), weight, weight, every)

    def sliced(s: Inputs) -> Sequence[Tensor]:
        weight = s["weight"][:width].to(s["x"].dtype)
        dx = torch.zeros_like(s["x"])
        dweight, dbias = torch.zeros_like(s["weight"]), torch.zeros_like(s["weight"])
        tensors = (s["dy"][..., :width], s["x"][..., :width], *statistics(s), dx[..., :width])
        for dy, x, mean, rstd, to in zip(*(t.chunk(GROUPS) for t in tensors), strict=True):
            part, *sums = native(dy, x, (width,), mean, rstd, weight, weight, every)
            to.copy_(part)
            dweight[:width] += sums[0]
            dbias[:width] += sums[1]
        return dx, dweight, dbias

    return {"F.layer_norm, full width": full, "F.layer_norm, sliced loop": sliced}
