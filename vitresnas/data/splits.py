"""Stratified splits, the same for ever: they depend on the labels and a seed, on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vitresnas.data.streams import stream
from vitresnas.errors import DataError

Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]

TEST_FRACTION = 0.2
HOLDOUT_PER_CLASS = 25  # ViT-ResNAS, section 4: 25,000 of ImageNet's training images


def draw_stratified(labels: Labels, count: int, seed: int, name: str) -> tuple[Indices, Indices]:
    """Draw `count` positions of `labels` in proportion to the classes; the drawn and the rest.

    Every class gives at least one and keeps at least one. Both results are sorted.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    quotas = _quotas(sizes, count)
    drawn = []
    for label, quota in zip(classes.tolist(), quotas, strict=True):
        members = np.flatnonzero(labels == label)
        order = np.random.default_rng(stream(seed, "split", name, label)).permutation(len(members))
        drawn.append(members[order[:quota]])
    chosen = np.sort(np.concatenate(drawn))
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    return chosen, rest


def holdout_size(labels: Labels) -> int:
    """How many of these training images to hold out.

    A tenth, at least 300 where that is not more than a fifth, at most 25 per class or 5,000:
    CIFAR-10 5,000; ImageNet 25,000.
    """
    total, classes = len(labels), len(np.unique(labels))
    wanted = max(total // 10, min(300, total // 5))
    return max(min(wanted, max(HOLDOUT_PER_CLASS * classes, 5000)), classes)


def numbered_classes(labels: Labels, where: str) -> tuple[str, ...]:
    """Names for classes that have only numbers. Raises DataError for more classes than images."""
    highest = int(labels.max(initial=-1))
    if highest >= len(labels):
        row = int(labels.argmax())
        raise DataError(
            f"{where} has the label {highest} (image {row}) among {len(labels)} images: number the "
            "classes from 0 without gaps"
        )
    return tuple(str(label) for label in range(highest + 1))


def check_class_sizes(labels: Labels, class_names: Sequence[str], parts: int, where: str) -> None:
    """Refuse one class alone, and a class too small to have an image in each of `parts` splits."""
    if len(class_names) < 2:
        only = f"the class {class_names[0]!r} alone" if class_names else "no class"
        raise DataError(f"{where} has {only}: a classifier needs images of at least 2 classes")
    sizes = np.bincount(labels, minlength=len(class_names))
    smallest = int(sizes.argmin())
    if sizes[smallest] < parts:
        names = "training, hold-out and test" if parts == 3 else "training and hold-out"
        raise DataError(
            f"{where} has {sizes[smallest]} images of class {class_names[smallest]!r}: {names} "
            f"need one each, so add images until there are at least {parts}, or remove the class"
        )


def _quotas(sizes: npt.NDArray[np.int64], count: int) -> list[int]:
    """Largest remainders: the quotas add up to `count` and stay within 1 .. size - 1."""
    exact = sizes * (count / sizes.sum())
    quotas = np.clip(np.floor(exact).astype(np.int64), 1, sizes - 1)
    for index in np.argsort(quotas - exact, kind="stable"):
        if quotas.sum() >= count:
            break
        quotas[index] = min(quotas[index] + 1, sizes[index] - 1)
    return [int(quota) for quota in quotas]
