"""Accuracy and negative log-likelihood of a classifier on a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitresnas.data.image_set import ImageSet


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy (0..1) and mean negative log-likelihood (nats)."""

    accuracy: float
    negative_log_likelihood: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@torch.no_grad()
def evaluate(
    logits_of: Callable[[Tensor], Tensor], images: ImageSet, *, batch_size: int = 512
) -> Score:
    """Score `logits_of` (normalised images (B, 3, S, S) -> logits (B, K)) on a whole split."""
    right = torch.zeros((), dtype=torch.long, device=images.labels.device)
    loss = torch.zeros((), dtype=torch.float64, device=images.labels.device)
    for images_BCHW, labels_B in images.batches(batch_size):
        logits_BK = logits_of(images_BCHW).float()
        right += (logits_BK.argmax(1) == labels_B).sum()
        loss += F.cross_entropy(logits_BK, labels_B, reduction="sum")
    return Score(right.item() / len(images), loss.item() / len(images))
