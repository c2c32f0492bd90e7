"""Soft cross-entropy of every classifier of the network with its labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def classification(heads: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy by head, and "loss": the mean of the heads on prefix tokens, plus the patches'.

    heads: logits by head, class and distillation (B, K), patch (B, N, K). targets: soft labels by
    head, "class" at least. Without a teacher a distillation token learns from the labels as the
    class token does. Patches count where there are labels for them (ViT-ResNAS, section 4).
    """
    losses = {
        name: cross_entropy(heads[name], targets.get(name, targets["class"]))
        for name in ("class", "distillation")
        if name in heads
    }
    loss = torch.stack(list(losses.values())).mean()
    if "patch" in heads and "patch" in targets:
        losses["patch"] = cross_entropy(heads["patch"], targets["patch"])
        loss = loss + losses["patch"]
    return {"loss": loss, **losses}


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Soft cross-entropy, averaged over all axes but the last, in at least float32."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(wide).flatten(0, -2), targets.to(wide).flatten(0, -2))
