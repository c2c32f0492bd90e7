"""Accuracies class by class: where classes are of unequal size, the mean over images hides some."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from vitresnas.data.image_set import ImageSet

IMBALANCED = 1.5  # largest class over smallest; from here on classes are told one by one
_WORST = 5  # classes that are named


def images_by_class(images: ImageSet, classes: int) -> list[int]:
    counts: list[int] = torch.bincount(images.labels, minlength=classes).tolist()
    return counts


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
