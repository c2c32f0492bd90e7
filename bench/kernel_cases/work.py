"""One thing to time, and what all cases share: types, shapes of the stages, sets of inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CACHE_BYTES = 192 << 20  # inputs in rotation: three times an H100's second-level cache
Inputs = dict[str, Tensor]
Call = Callable[[Inputs], Any]


@dataclass
class Work:
    """One thing to time: the kernel, its rivals, and what it cannot do without."""

    op: str
    direction: str  # forward | backward
    shape: tuple[int, ...]
    dtype: str
    active_share: float  # of the FLOPs, or of the bytes where there are none to speak of
    bytes: int  # read and written at least
    sets: list[Inputs]  # inputs in rotation, so that caches are cold; "x" says where we are
    ours: Callable[[Inputs], Sequence[Tensor]]  # through the registered op: the backend is chosen
    baselines: dict[str, Call]  # without the reference, which every op has
    truth: Callable[[Inputs], Sequence[Tensor]]  # in float64; NaN where ours promises nothing
    flops: int = 0  # multiplications and additions of matrix products at least
    case: str = ""  # which use of the op: "qkv", "proj"
    impossible: dict[str, str] = field(default_factory=dict)  # rivals that cannot, and why


def make_sets(draw: Callable[[], Inputs], bytes_per_call: int) -> list[Inputs]:
    """As many inputs as it takes for a call to find none of its own in the caches."""
    return [draw() for _ in range(max(3, -(-CACHE_BYTES // bytes_per_call)))]


def in_float64(s: Inputs) -> Inputs:
    """The same inputs for the truth; whole numbers (widths) stay what they are."""
    return {k: v.double() if v.is_floating_point() else v for k, v in s.items()}


def widths_tensor(widths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(widths, dtype=torch.int32, device=device)


def groups_of(batch: int, groups: int) -> list[slice]:
    """The images of each group."""
    size = batch // groups
    return [slice(g * size, (g + 1) * size) for g in range(groups)]


def gradients(forward: Call, wanted: Sequence[str], s: Inputs) -> Sequence[Tensor]:
    """What autograd makes of s["dy"] through `forward`; one gradient per name in `wanted`."""
    return Gradients(forward, wanted)(s)


class Gradients:
    """A baseline's backward pass by autograd; forward runs in the first call with a set alone."""

    def __init__(self, forward: Call, wanted: Sequence[str]) -> None:
        self.forward, self.wanted = forward, wanted
        # The inputs are kept as well, or others could take over their id.
        self.kept: dict[int, tuple[Inputs, Tensor, list[Tensor]]] = {}

    def __call__(self, s: Inputs) -> Sequence[Tensor]:
        if id(s) not in self.kept:
            with torch.enable_grad():
                leaves = {name: s[name].detach().requires_grad_() for name in self.wanted}
                self.kept[id(s)] = s, self.forward({**s, **leaves}), list(leaves.values())
        _, y, wanted = self.kept[id(s)]
        return torch.autograd.grad(y, wanted, s["dy"], retain_graph=True)
