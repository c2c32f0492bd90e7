"""Soft cross-entropy of every classifier of the network with the image's label."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def classification(heads: Mapping[str, Tensor], targets_BK: Tensor) -> dict[str, Tensor]:
    """Cross-entropy by head, and "loss", their mean.

    Without a teacher a distillation token learns from the labels as the class token does.
    """
    losses = {
        name: _cross_entropy(heads[name], targets_BK)
        for name in ("class", "distillation")
        if name in heads
    }
    return {"loss": torch.stack(list(losses.values())).mean(), **losses}


def _cross_entropy(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    wide = torch.promote_types(logits_BK.dtype, torch.float32)
    return F.cross_entropy(logits_BK.to(wide), targets_BK.to(wide))
