"""Accuracy, over all and class by class, and negative log-likelihood of a classifier on a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitresnas.data.by_class import shares
from vitresnas.data.image_set import ImageSet
from vitresnas.files import JsonObject


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy (0..1), mean negative log-likelihood (nats), and the accuracy of each class
    (None for a class without images)."""

    accuracy: float
    negative_log_likelihood: float
    accuracy_by_class: tuple[float | None, ...]

    def to_json(self) -> JsonObject:
        return asdict(self)


def score_network(model: nn.Module, images: ImageSet) -> Score:
    """One classifier, images (B, 3, S, S) to logits (B, K), in evaluation mode."""
    model.eval()
    score = evaluate(lambda images_BCHW: cast(Tensor, model(images_BCHW)), images)
    model.train()
    return score


@torch.no_grad()
def evaluate(
    logits_of: Callable[[Tensor], Tensor], images: ImageSet, *, batch_size: int = 512
) -> Score:
    """Score `logits_of` (normalised images (B, 3, S, S) -> logits (B, K)) on a whole split."""
    right_K = images_K = torch.zeros((), dtype=torch.long)
    loss = torch.zeros((), dtype=torch.float64, device=images.labels.device)
    for images_BCHW, labels_B in images.batches(batch_size):
        logits_BK = logits_of(images_BCHW).float()
        classes = logits_BK.shape[1]
        right_B = logits_BK.argmax(1) == labels_B
        right_K = right_K + torch.bincount(labels_B[right_B], minlength=classes).cpu()
        images_K = images_K + torch.bincount(labels_B, minlength=classes).cpu()
        loss += F.cross_entropy(logits_BK, labels_B, reduction="sum")
    return Score(
        int(right_K.sum()) / len(images),
        loss.item() / len(images),
        tuple(shares(right_K, images_K.tolist())),
    )
