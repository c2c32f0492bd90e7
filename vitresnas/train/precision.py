"""In which number format a step computes."""

from __future__ import annotations

import torch


def autocast(dtype: str, device: torch.device) -> torch.autocast:
    """bf16 autocast where the recipe asks for it, or where it is fast (a GPU that has it)."""
    if dtype == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bf16" if fast else "fp32"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bf16")
