"""Masked LayerNorm: zeros beyond the width, statistics of the active columns alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernel_cases.work import (
    DTYPES,
    STAGES,
    Call,
    Inputs,
    Work,
    gradients,
    groups_of,
    in_float64,
    int32,
    of_groups,
    settings,
)
from vitresnas.ops import masked_layer_norm as mln
from vitresnas.ops.masked_layer_norm_reference import forward as reference_forward

EPS = 1e-6
NATIVE = torch.ops.aten.native_layer_norm_backward
EVERY = (True, True, True)


def works(batch: int, device: torch.device) -> Iterator[Work]:
    more = [(stage, "full", "fp32") for stage in STAGES]  # where torch's own kernel competes
    for stage, shares, dtype in (*settings(), *more):
        widths = of_groups(stage.embed, "embed", shares)
        yield from both_ways((batch, stage.tokens, stage.embed), widths, dtype, device)


def both_ways(
    shape: tuple[int, int, int], widths: list[int], dtype: str, device: torch.device
) -> Iterator[Work]:
    kind, channels = DTYPES[dtype], shape[-1]

    def draw() -> Inputs:
        x, dy = (torch.randn(shape, device=device).to(kind) for _ in range(2))
        weight, bias = (torch.randn(channels, device=device) for _ in range(2))
        widths_G = int32(widths, device)
        _, mean, rstd = reference_forward(x, weight, bias, widths_G, EPS)
        return dict(x=x, dy=dy, weight=weight, bias=bias, widths=widths_G, mean=mean, rstd=rstd)

    sliced = forward_baselines(widths)["F.layer_norm, sliced loop"]
    share = sum(widths) / len(widths) / channels
    common: dict[str, Any] = dict(op=mln.OP.name, shape=shape, dtype=dtype, draw=draw)
    common |= {"active_share": share}
    row = kind.itemsize * shape[0] * shape[1] * channels
    # Zeros are stored beyond the width too.
    yield Work(
        direction="forward", bytes=int(row * (share + 1)), ours=forward,
        baselines=forward_baselines(widths), truth=lambda s: [sliced(in_float64(s))], **common,
    )  # fmt: skip
    yield Work(
        direction="backward", bytes=int(row * (2 * share + 1)), ours=backward,
        baselines=backward_baselines(widths),
        truth=lambda s: gradients(sliced, ("x", "weight", "bias"), in_float64(s)), **common,
    )  # fmt: skip


def forward(s: Inputs) -> Sequence[Tensor]:
    return [mln.masked_layer_norm(s["x"], s["weight"], s["bias"], s["widths"], EPS)]


def backward(s: Inputs) -> Sequence[Tensor]:
    names = ("dy", "x", "mean", "rstd", "weight", "widths")
    found: Sequence[Tensor] = torch.ops.vitresnas.masked_layer_norm_backward(
        *(s[name] for name in names)
    )
    return found


def forward_baselines(widths: list[int]) -> dict[str, Call]:
    def full(s: Inputs) -> Tensor:
        kind = s["x"].dtype
        shape = s["weight"].shape
        return F.layer_norm(s["x"], shape, s["weight"].to(kind), s["bias"].to(kind), EPS)

    def sliced(s: Inputs) -> Tensor:
        y, kind = torch.zeros_like(s["x"]), s["x"].dtype
        weight, bias = s["weight"].to(kind), s["bias"].to(kind)
        for at, w in zip(groups_of(len(y)), widths, strict=True):
            y[at, :, :w] = F.layer_norm(s["x"][at, :, :w], (w,), weight[:w], bias[:w], EPS)
        return y

    return {"F.layer_norm, full width": full, "F.layer_norm, sliced loop": sliced}


def backward_baselines(widths: list[int]) -> dict[str, Call]:
    def statistics(s: Inputs) -> tuple[Tensor, Tensor]:
        # Torch's own backward wants them in x's type on the CPU.
        kind = s["x"].dtype if s["x"].is_cpu else s["mean"].dtype
        return s["mean"][..., None].to(kind), s["rstd"][..., None].to(kind)

    def full(s: Inputs) -> Any:
        weight = s["weight"].to(s["x"].dtype)
        return NATIVE(s["dy"], s["x"], weight.shape, *statistics(s), weight, weight, EVERY)

    def sliced(s: Inputs) -> Sequence[Tensor]:
        weight = s["weight"].to(s["x"].dtype)
        dx = torch.zeros_like(s["x"])
        dweight, dbias = torch.zeros_like(s["weight"]), torch.zeros_like(s["weight"])
        mean, rstd = statistics(s)
        for at, w in zip(groups_of(len(dx)), widths, strict=True):
            dy, x = s["dy"][at, :, :w], s["x"][at, :, :w]
            part, *sums = NATIVE(dy, x, (w,), mean[at], rstd[at], weight[:w], weight[:w], EVERY)
            dx[at, :, :w] = part
            dweight[:w] += sums[0]
            dbias[:w] += sums[1]
        return dx, dweight, dbias

    return {"F.layer_norm, full width": full, "F.layer_norm, sliced loop": sliced}
