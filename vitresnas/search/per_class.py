"""Accuracies class by class: where classes are of unequal size, the mean over images hides some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from vitresnas.data import Data, ImageSet
from vitresnas.files import JsonObject
from vitresnas.search.result import SearchResult
from vitresnas.search.score import SCORING_BATCH
from vitresnas.space import Architecture
from vitresnas.supernet import Supernet

IMBALANCED = 1.5  # largest class over smallest; from here on classes are told one by one


def per_class(
    result: SearchResult, winner: nn.Module, supernet: Supernet, data: Data
) -> JsonObject:
    """`SearchResult.per_class`: the hold-out for every network that was taken out, by id, with
    inherited weights; the test split for the winner alone, with the weights it ends with."""
    finalists = (one for found in result.rounds for one in found.finalists)
    compared = {
        found.candidate.id: found.candidate.architecture
        for found in (result.best, result.selected, result.largest, *finalists)
    }
    classes = len(data.class_names)
    return {
        "names": list(data.class_names),
        "holdout_images": images_by_class(data.holdout, classes),
        "test_images": images_by_class(data.test, classes),
        "holdout_accuracy": _accuracies(compared, supernet, data.holdout, classes),
        "test_accuracy": accuracy_by_class(winner, data.test, classes),
    }


def _accuracies(
    networks: Mapping[str, Architecture], supernet: Supernet, images: ImageSet, classes: int
) -> dict[str, list[float | None]]:
    return {
        identifier: accuracy_by_class(supernet.extract(architecture), images, classes)
        for identifier, architecture in networks.items()
    }


def images_by_class(images: ImageSet, classes: int) -> list[int]:
    counts: list[int] = torch.bincount(images.labels, minlength=classes).tolist()
    return counts


@torch.inference_mode()
def accuracy_by_class(model: nn.Module, images: ImageSet, classes: int) -> list[float | None]:
    """The share of each class that is classified correctly; None for a class without images."""
    device = next(model.parameters()).device
    correct_K = torch.zeros(classes, dtype=torch.int64)
    for images_BCHW, labels_B in images.to(device).batches(SCORING_BATCH):
        right_B = model.eval()(images_BCHW).argmax(1) == labels_B
        correct_K += torch.bincount(labels_B[right_B], minlength=classes).cpu()
    counts = images_by_class(images, classes)
    return [
        right / count if count else None
        for right, count in zip(correct_K.tolist(), counts, strict=True)
    ]


def is_imbalanced(counts: Iterable[int]) -> bool:
    """Whether one class has many more images than another."""
    counts = tuple(counts)
    return max(counts, default=0) > IMBALANCED * min(counts, default=0)
