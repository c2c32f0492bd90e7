"""Variable linear: the queries, keys and values of a block, its projection, and its MLP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernel_cases.work import (
    DTYPES,
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
    split_of,
)
from vitresnas.ops.variable_linear import OP, variable_linear, variable_linear_residual
from vitresnas.ops.variable_mlp import variable_mlp
from vitresnas.supernet.sliced_linear import sliced_linear

COMMON: dict[str, Any] = {
    "op": OP.name,
    "impossible": {
        "F.grouped_mm": "not expressible: one shape of weight for all groups, one jagged dimension"
    },
}


def works(batch: int, device: torch.device) -> Iterator[Work]:
    for stage, shares, dtype in settings():
        yield from qkv(batch, stage, shares, dtype, device)
        yield from projection(batch, stage, shares, dtype, device)
        yield from mlp(batch, stage, shares, dtype, device)


def layer(s: Inputs, number: str = "") -> Any:
    return SimpleNamespace(weight=s[f"weight{number}"], bias=s[f"bias{number}"])


def parts_of(x: Tensor | list[Tensor], widths: list[int], segments: int = 1) -> list[Tensor]:
    return split_of(widths, segments)(x) if isinstance(x, Tensor) else x


def qkv(batch: int, stage: Stage, shares: str, dtype: str, device: torch.device) -> Iterator[Work]:
    kind, rows = DTYPES[dtype], batch * stage.tokens
    inputs = of_groups(stage.embed, "embed", shares)
    outputs = [stage.head_dim * h for h in of_groups(stage.heads, "heads", shares)]
    full = 3 * stage.heads * stage.head_dim

    def draw() -> Inputs:
        return {
            "x": settled(drawn((batch, stage.tokens, stage.embed), kind, device), inputs),
            "weight": drawn((full, stage.embed), kind, device, stage.embed**-0.5),
            "bias": torch.randn(full, device=device),
            "dy": settled(drawn((batch, stage.tokens, full), kind, device), outputs, 3),
            "widths_in": int32(inputs, device),
            "widths_out": int32(outputs, device),
        }

    def ours(s: Inputs) -> Tensor:
        widths = (s["widths_in"], s["widths_out"])
        return variable_linear(s["x"], s["weight"], s["bias"], *widths, segments=3)

    def dense(s: Inputs) -> Tensor:
        return F.linear(s["x"], s["weight"], s["bias"].to(s["x"].dtype))

    def masked(s: Inputs) -> Tensor:
        y = dense({**s, "x": s["x"] * active(s["x"], inputs)})
        return y * active(y, outputs, 3)

    def sliced(s: Inputs) -> list[Tensor]:
        return sliced_linear(
            parts_of(s["x"], inputs), layer(s), [3 * n for n in outputs], segments=3
        )

    forwards = {"full width": dense, "times masks": masked, "sliced loop": sliced}
    cells = rows / len(inputs) * sum(k * 3 * n for k, n in zip(inputs, outputs, strict=True))
    k, n = sum(inputs) / len(inputs), 3 * sum(outputs) / len(outputs)
    weight = int(max(inputs) * 3 * max(outputs))
    yield from both_ways(
        case="qkv", shape=(batch, stage.tokens, stage.embed, full), dtype=dtype, draw=draw,
        ours=ours, forwards=forwards, inputs={"x": (inputs, 1)}, parameters=("weight", "bias"),
        outputs=(outputs, 3), flops=(int(2 * cells), 2 * rows * stage.embed * full),
        bytes=(
            int(kind.itemsize * (rows * (k + n) + weight)),
            int(kind.itemsize * (rows * (2 * k + n) + weight) + 4 * stage.embed * full),
        ), **COMMON,
    )  # fmt: skip


def projection(
    batch: int, stage: Stage, shares: str, dtype: str, device: torch.device
) -> Iterator[Work]:
    kind, rows, full = DTYPES[dtype], batch * stage.tokens, stage.heads * stage.head_dim
    inputs = [stage.head_dim * h for h in of_groups(stage.heads, "heads", shares)]
    outputs = of_groups(stage.embed, "embed", shares)

    def draw() -> Inputs:
        return {
            "x": settled(drawn((batch, stage.tokens, full), kind, device), inputs),
            "weight": drawn((stage.embed, full), kind, device, full**-0.5),
            "bias": torch.randn(stage.embed, device=device),
            **residual_stream(batch, stage, outputs, device),
            "widths_in": int32(inputs, device),
            "widths_out": int32(outputs, device),
        }

    def ours(s: Inputs) -> Tensor:
        widths = (s["widths_in"], s["widths_out"])
        return variable_linear_residual(
            s["x"], s["weight"], s["bias"], *widths, s["residual"], s["scale"]
        )

    def dense(s: Inputs) -> Tensor:
        y = F.linear(s["x"], s["weight"], s["bias"].to(s["x"].dtype))
        return s["residual"] + s["scale"][:, None, None] * y

    def masked(s: Inputs) -> Tensor:
        y = dense({**s, "x": s["x"] * active(s["x"], inputs)})
        return y * active(y, outputs)

    def sliced(s: Inputs) -> list[Tensor]:
        ys = sliced_linear(parts_of(s["x"], inputs), layer(s), outputs)
        return add_residual(ys, s, outputs)

    forwards = {"full width": dense, "times masks": masked, "sliced loop": sliced}
    cells = rows / len(inputs) * sum(k * n for k, n in zip(inputs, outputs, strict=True))
    k, n = sum(inputs) / len(inputs), sum(outputs) / len(outputs)
    weight = kind.itemsize * max(inputs) * max(outputs)
    yield from both_ways(
        case="projection", shape=(batch, stage.tokens, full, stage.embed), dtype=dtype, draw=draw,
        ours=ours, forwards=forwards, inputs={"x": (inputs, 1)}, parameters=("weight", "bias"),
        outputs=(outputs, 1), flops=(int(2 * cells), 2 * rows * stage.embed * full),
        bytes=(
            int(rows * (kind.itemsize * k + 8 * n) + weight),  # the residual stream is float32
            int(rows * (2 * kind.itemsize * k + 4 * n) + weight + 4 * stage.embed * full),
        ), **COMMON,
    )  # fmt: skip


def mlp(batch: int, stage: Stage, shares: str, dtype: str, device: torch.device) -> Iterator[Work]:
    kind, rows, full = DTYPES[dtype], batch * stage.tokens, stage.hidden
    widths = of_groups(stage.embed, "embed", shares)
    hidden = of_groups(full, "hidden", shares)
    names = ("weight1", "bias1", "weight2", "bias2")

    def draw() -> Inputs:
        return {
            "x": settled(drawn((batch, stage.tokens, stage.embed), kind, device), widths),
            "weight1": drawn((full, stage.embed), kind, device, stage.embed**-0.5),
            "bias1": torch.randn(full, device=device),
            "weight2": drawn((stage.embed, full), kind, device, full**-0.5),
            "bias2": torch.randn(stage.embed, device=device),
            **residual_stream(batch, stage, widths, device),
            "widths_in": int32(widths, device),
            "widths_hidden": int32(hidden, device),
        }

    def ours(s: Inputs) -> Tensor:
        others = ("widths_in", "widths_hidden", "residual", "scale")
        return variable_mlp(*(s[name] for name in ("x", *names, *others)))

    def feed(s: Inputs, x: Tensor, keep: Callable[[Tensor], Tensor]) -> Tensor:
        h = keep(F.gelu(F.linear(x, s["weight1"], s["bias1"].to(x.dtype))))
        y = F.linear(h, s["weight2"], s["bias2"].to(x.dtype))
        return s["residual"] + s["scale"][:, None, None] * y

    def dense(s: Inputs) -> Tensor:
        return feed(s, s["x"], lambda h: h)

    def masked(s: Inputs) -> Tensor:
        y = feed(s, s["x"] * active(s["x"], widths), lambda h: h * active(h, hidden))
        return y * active(y, widths)

    def sliced(s: Inputs) -> list[Tensor]:
        hs = sliced_linear(parts_of(s["x"], widths), layer(s, "1"), hidden)
        ys = sliced_linear([F.gelu(h) for h in hs], layer(s, "2"), widths)
        return add_residual(ys, s, widths)

    forwards = {"full width": dense, "times masks": masked, "sliced loop": sliced}
    cells = rows / len(widths) * sum(2 * k * n for k, n in zip(widths, hidden, strict=True))
    k, n = sum(widths) / len(widths), sum(hidden) / len(hidden)
    weights = kind.itemsize * 2 * max(widths) * max(hidden)
    yield from both_ways(
        case="mlp", shape=(batch, stage.tokens, stage.embed, full), dtype=dtype, draw=draw,
        ours=ours, forwards=forwards, inputs={"x": (widths, 1)}, parameters=names,
        outputs=(widths, 1), flops=(int(2 * cells), 4 * rows * stage.embed * full),
        bytes=(
            # Forward may keep the hidden activations on the chip; backward must have them.
            int(rows * (kind.itemsize * k + 8 * k) + weights),
            int(rows * (kind.itemsize * (2 * k + n) + 4 * k) + weights + 8 * stage.embed * full),
        ), **COMMON,
    )  # fmt: skip


def residual_stream(
    batch: int, stage: Stage, widths: list[int], device: torch.device
) -> dict[str, Tensor]:
    """What a branch is added to, in float32 as under autocast, and stochastic depth's factors."""
    shape = (batch, stage.tokens, stage.embed)
    residual, dy = (settled(torch.randn(shape, device=device), widths) for _ in range(2))
    return {"residual": residual, "dy": dy, "scale": torch.rand(batch, device=device)}


def add_residual(ys: list[Tensor], s: Inputs, widths: list[int]) -> list[Tensor]:
    residuals = parts_of(s["residual"], widths)
    scales = [s["scale"][at, None, None] for at in groups_of(len(s["scale"]))]
    return [r + c * y for r, c, y in zip(residuals, scales, ys, strict=True)]
