"""Accuracies class by class: where classes are of unequal size, the mean over images hides some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from vitresnas.data.image_set import ImageSet

IMBALANCED = 1.5  # largest class over smallest; from here on classes are told one by one
BATCH = 500
_WORST = 5  # classes that are named

Accuracies = list[float | None]  # None for a class without images


def images_by_class(images: ImageSet, classes: int) -> list[int]:
    counts: list[int] = torch.bincount(images.labels, minlength=classes).tolist()
    return counts


def accuracy_by_class(model: nn.Module, images: ImageSet, classes: int) -> Accuracies:
    """The share of each class that `model`, put into evaluation mode, classifies correctly."""
    device = next(model.parameters()).device
    return accuracies(model.eval(), images.to(device), classes)


@torch.inference_mode()
def accuracies(logits_of: Callable[[Tensor], Tensor], images: ImageSet, classes: int) -> Accuracies:
    """The same for any function of normalised images (B, 3, S, S) to logits (B, K)."""
    correct_K = torch.zeros(classes, dtype=torch.int64)
    for images_BCHW, labels_B in images.batches(BATCH):
        right_B = logits_of(images_BCHW).argmax(1) == labels_B
        correct_K += torch.bincount(labels_B[right_B], minlength=classes).cpu()
    return shares(correct_K, images_by_class(images, classes))


def shares(correct_K: Tensor, counts: Sequence[int]) -> Accuracies:
    """Correct answers over images, class by class."""
    return [
        right / count if count else None
        for right, count in zip(correct_K.tolist(), counts, strict=True)
    ]


def is_imbalanced(counts: Iterable[int]) -> bool:
    """Whether one class has many more images than another."""
    counts = tuple(counts)
    return max(counts, default=0) > IMBALANCED * min(counts, default=0)


def told_worst_first(
    names: Sequence[str], found: Sequence[float | None], counts: Sequence[int]
) -> str:
    """The mean over classes, and the worst of them."""
    rows = zip(names, found, counts, strict=True)
    known = sorted((right, name, count) for name, right, count in rows if right is not None)
    mean = sum(right for right, *_ in known) / len(known)
    worst = ", ".join(f"{name} ({right:.2f} of {count})" for right, name, count in known[:_WORST])
    more = f", {len(known) - _WORST} more" if len(known) > _WORST else ""
    return f"mean {mean:.4f} of {len(known)} classes, worst first: {worst}{more}"


def told_by_class(
    names: Sequence[str], found: Sequence[float | None], counts: Sequence[int]
) -> str:
    """The mean over classes and the worst class, in a sentence; empty where classes are alike."""
    if not is_imbalanced(counts):
        return ""
    rows = zip(names, found, counts, strict=True)
    known = [(name, right, count) for name, right, count in rows if right is not None]
    mean = sum(right for _, right, _ in known) / len(known)
    name, right, count = min(known, key=lambda row: row[1])
    return (
        f"test accuracy {mean:.4f}, mean of {len(known)} classes of unequal size; "
        f"lowest for {name}: {right:.4f} of {count} images"
    )
