"""One thing to time, and what all cases share: the stages, widths, inputs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Inputs = dict[str, Any]
Call = Callable[[Inputs], Any]


@dataclass
class Work:
    """One thing to time: the kernel, its rivals, and what it cannot do without."""

    op: str
    direction: str  # forward | backward
    shape: tuple[int, ...]
    dtype: str
    active_share: float  # of the FLOPs; of the columns where there are none to speak of
    bytes: int  # read and written at least
    draw: Callable[[], Inputs]  # one set of inputs; "x" is what the backend is chosen by
    ours: Callable[[Inputs], Sequence[Tensor]]  # through the public op: the backend is chosen
    baselines: Mapping[str, Call]  # without the reference, which every op has
    truth: Callable[[Inputs], Sequence[Tensor]]  # in float64; NaN where ours promises nothing
    flops: int = 0  # multiplications and additions of matrix products at least
    case: str = ""  # which use of the op: "qkv", "projection"
    chosen_by: Callable[[Inputs], Sequence[Tensor]] = lambda s: (s["x"],)  # what dispatch looks at
    impossible: dict[str, str] = field(default_factory=dict)  # rivals that cannot, and why

    def exact(self, baseline: str) -> bool:
        """Whether a baseline gives this op's result: full width does where nothing is masked."""
        return self.active_share == 1 or "full width" not in baseline

    def sets(self, cache_bytes: int) -> list[Inputs]:
        """As many inputs as it takes for a call to find none of its own in the caches."""
        return [self.draw() for _ in range(max(3, -(-cache_bytes // self.bytes)))]


@dataclass(frozen=True)
class Stage:
    """A stage of ViT-ResNAS-Tiny's space at full width; its patches make a square grid."""

    tokens: int
    embed: int
    heads: int
    head_dim: int
    hidden: int
    grid: int


STAGES = (
    Stage(257, 256, 6, 32, 768, 16),
    Stage(65, 512, 12, 48, 1536, 8),
    Stage(17, 1024, 12, 64, 3072, 4),
)
# Shares of two groups: everything, and near the means over the space (.79, .75, .75).
SHARES = {
    "full": {"embed": (1.0, 1.0), "heads": (1.0, 1.0), "hidden": (1.0, 1.0)},
    "mean": {"embed": (0.875, 0.6875), "heads": (5 / 6, 4 / 6), "hidden": (0.875, 0.625)},
}
GROUPS = 2


def settings() -> Iterator[tuple[Stage, str, str]]:
    """(stage, shares, dtype): mean widths in both types, full width in bf16."""
    for stage in STAGES:
        for shares, dtype in (("mean", "bf16"), ("mean", "fp32"), ("full", "bf16")):
            yield stage, shares, dtype


def of_groups(full: int, kind: str, shares: str) -> list[int]:
    """Each group's width where the largest network has `full`."""
    return [round(full * share) for share in SHARES[shares][kind]]


def groups_of(batch: int, groups: int = GROUPS) -> list[slice]:
    """The images of each group."""
    size = batch // groups
    return [slice(g * size, (g + 1) * size) for g in range(groups)]


def int32(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)


def active(like: Tensor, widths: Sequence[int], segments: int = 1, to: int = 1) -> Tensor:
    """True in the columns that count, widths rounded up to a multiple of `to`; (B, 1..., X)."""
    columns = torch.arange(like.shape[-1] // segments, device=like.device)
    mask = torch.stack([columns < -(-width // to) * to for width in widths])
    mask = mask.repeat_interleave(len(like) // len(widths), 0).repeat(1, segments)
    return mask.view(len(like), *[1] * (like.dim() - 2), like.shape[-1])


def settled(x: Tensor, widths: Sequence[int], segments: int = 1) -> Tensor:
    """`x` as ops hand it on: zero from its width to the next 16, anything beyond."""
    padding = active(x, widths, segments, 16) & ~active(x, widths, segments)
    return x.masked_fill(padding, 0)


def specified(x: Tensor, widths: Sequence[int], segments: int = 1) -> Tensor:
    """`x` with NaN where nothing is promised."""
    return x.masked_fill(~active(x, widths, segments), float("nan"))


def in_float64(s: Inputs) -> Inputs:
    """The same inputs for the truth; whole numbers (widths) stay what they are."""
    return {k: v.double() if v.is_floating_point() else v for k, v in s.items()}


def gradients(forward: Call, wanted: Sequence[str], s: Inputs) -> Sequence[Tensor]:
    """What autograd makes of s["dy"] through `forward`; one gradient per name in `wanted`."""
    return Gradients(forward, wanted)(s)


class Gradients:
    """A backward pass by autograd; the forward pass runs in the first call with a set alone.

    split: leaves that are a list of one tensor per group, by name; "dy" too where forward's result
    is a list. masters: parameters that are kept in float32.
    """

    def __init__(
        self,
        forward: Call,
        wanted: Sequence[str],
        split: Mapping[str, Callable[[Tensor], list[Tensor]]] | None = None,
        masters: Sequence[str] = (),
    ) -> None:
        self.forward, self.wanted, self.split, self.masters = forward, wanted, split or {}, masters
        # The inputs are kept as well, or others could take over their id.
        self.kept: dict[int, tuple[Inputs, Any, list[Tensor], Any]] = {}

    def __call__(self, s: Inputs) -> Sequence[Tensor]:
        if id(s) not in self.kept:
            self.kept[id(s)] = s, *self.prepare(s)
        _, y, leaves, dy = self.kept[id(s)]
        return torch.autograd.grad(y, leaves, dy, retain_graph=True)

    def prepare(self, s: Inputs) -> tuple[Any, list[Tensor], Any]:
        given, leaves = dict(s), []
        for name in self.wanted:
            value = s[name].float() if name in self.masters else s[name]
            parts = self.split[name](value) if name in self.split else [value]
            found = [part.detach().requires_grad_() for part in parts]
            given[name] = found if name in self.split else found[0]
            leaves += found
        dy = self.split["dy"](s["dy"]) if "dy" in self.split else s["dy"]
        with torch.enable_grad():
            return self.forward(given), leaves, dy


Widths = tuple[list[int], int]  # the width in each group, and how many segments have it


def both_ways(
    *,
    ours: Call,
    forwards: Mapping[str, Call],
    inputs: Mapping[str, Widths | None],
    parameters: Sequence[str],
    outputs: Widths,
    flops: tuple[int, int],
    bytes: tuple[int, int],
    backward_flops: int | None = None,
    **common: Any,
) -> Iterator[Work]:
    """Forward and backward of one use of an op.

    forwards: the plain ways, "times masks" among them, which in float64 is the truth; a "sliced
    loop" takes and gives lists of one tensor per group. inputs: those with a gradient that is no
    parameter's, "x" first. flops: of the active part and of full width. bytes: forward, backward.
    """
    wanted, masked = (*inputs, *parameters), forwards["times masks"]
    split = {name: split_of(*widths) for name, widths in inputs.items() if widths}
    split["dy"] = split_of(*outputs)

    def truth(s: Inputs) -> Sequence[Tensor]:
        return [specified(masked(in_float64(s)), *outputs)]

    def true_gradients(s: Inputs) -> Sequence[Tensor]:
        found = list(gradients(masked, wanted, in_float64(s)))
        for place, widths in enumerate(inputs.values()):
            found[place] = specified(found[place], *widths) if widths else found[place]
        return found

    common |= {"active_share": flops[0] / flops[1]}
    yield Work(
        direction="forward", bytes=bytes[0], flops=flops[0], ours=lambda s: [ours(s)],
        baselines=forwards, truth=truth, **common,
    )  # fmt: skip
    yield Work(
        direction="backward", bytes=bytes[1], flops=backward_flops or 2 * flops[0],
        ours=Gradients(ours, wanted, masters=parameters),
        baselines={
            name: Gradients(forward, wanted, split if "sliced" in name else None)
            for name, forward in forwards.items()
        },
        truth=true_gradients, **common,
    )  # fmt: skip


def split_of(widths: list[int], segments: int = 1) -> Callable[[Tensor], list[Tensor]]:
    """(B, ..., X) as each group's active part; views where there is one segment."""

    def split(x: Tensor) -> list[Tensor]:
        parts = []
        for at, w in zip(groups_of(len(x), len(widths)), widths, strict=True):
            parts.append(x[at].unflatten(-1, (segments, -1))[..., :w].flatten(-2))
        return parts

    return split


def drawn(
    shape: tuple[int, ...], kind: torch.dtype, device: torch.device, scale: float = 1.0
) -> Tensor:
    return (scale * torch.randn(shape, device=device)).to(kind)
