"""In which number format a step computes, and by which path a super-network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from vitresnas.ops import native
from vitresnas.train.recipe import AUTO, SUPERNET, Recipe


def autocast(dtype: str, device: torch.device) -> torch.autocast:
    """bf16 autocast where the recipe asks for it, or where it is fast (a GPU that has it)."""
    enabled = number_format(dtype, device) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def number_format(dtype: str, device: torch.device) -> str:
    """What a recipe's dtype means on a device: "bf16" or "fp32"."""
    if dtype != AUTO:
        return dtype
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if fast else "fp32"


def choose_path(number_format: str, device_type: str, *, built: bool = True) -> str:
    """The path that suits "bf16" or "fp32" on a type of device; `--dry-run` measures all of them.

    built: whether the C++ kernels are there. In bf16 on a CPU they make the fused path the fastest:
    slices wait for oneDNN (docs/training.md). In fp32 slices come first or close to it, and also
    where the fused path has only its reference. All of this was measured on a Xeon of 2 cores.
    No path has been timed on a GPU yet: slices there, which need no kernel of ours.
    """
    fused = number_format == "bf16" and device_type == "cpu" and built
    return "fused" if fused else "sliced"


def settled(recipe: Recipe, device: torch.device, begun: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe with its path decided for this device; one network's recipe needs none.

    begun: the identity of a run that goes on. It keeps the path it began with, since paths differ
    in rounding.
    """
    if recipe.task != SUPERNET or recipe.path != AUTO:
        return recipe
    kind = number_format(recipe.dtype, device)
    here = choose_path(kind, device.type, built=not native.missing())
    return replace(recipe, path=(begun or {}).get("path", here))
