"""How well a classifier does on a split: over all images, and class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from vitresnas.data.image_set import ImageSet
from vitresnas.files import JsonObject


@dataclass(frozen=True)
class Evaluation:
    """The mean negative log-likelihood (nats), and the top-1 accuracy (0..1) over all images and of
    each class; None for a class without images."""

    negative_log_likelihood: float
    accuracy: float
    images: int
    accuracy_by_class: tuple[float | None, ...]

    def to_json(self) -> JsonObject:
        return {**asdict(self), "accuracy_by_class": list(self.accuracy_by_class)}


def evaluate_model(model: nn.Module, images: ImageSet) -> Evaluation:
    """One network, images (B, 3, S, S) to logits (B, K), in evaluation mode and on its device."""
    device, training = next(model.parameters()).device, model.training
    found = evaluate(model.eval(), images.to(device).batches())
    model.train(training)
    return found


@torch.no_grad()
def evaluate(
    logits_of: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]
) -> Evaluation:
    """`logits_of` (inputs (B, ...) -> logits (B, K)) on batches of inputs and labels (B,), such as
    `ImageSet.batches` makes. Likelihoods are computed and added up in float64."""
    loss = 0.0
    right: list[Tensor] = []
    labels: list[Tensor] = []
    for inputs_B, labels_B in batches:
        logits_BK = logits_of(inputs_B).double()
        loss += float(nn.functional.cross_entropy(logits_BK, labels_B, reduction="none").sum())
        right.append(logits_BK.argmax(1) == labels_B)
        labels.append(labels_B)
    right_N, labels_N, classes = torch.cat(right), torch.cat(labels), logits_BK.shape[1]
    right_K = torch.bincount(labels_N[right_N], minlength=classes).tolist()
    images_K = torch.bincount(labels_N, minlength=classes).tolist()
    return Evaluation(
        loss / len(labels_N),
        sum(right_K) / len(labels_N),
        len(labels_N),
        tuple(found / of if of else None for found, of in zip(right_K, images_K, strict=True)),
    )
