"""Accuracies class by class, of every network that a search took out."""

from __future__ import annotations

from collections.abc import Mapping

from vitresnas.data import Data, ImageSet
from vitresnas.data.by_class import images_by_class
from vitresnas.data.evaluate import Evaluation, evaluate_model
from vitresnas.files import JsonObject
from vitresnas.search.result import SearchResult
from vitresnas.space import Architecture
from vitresnas.supernet import Supernet


def per_class(result: SearchResult, test: Evaluation, supernet: Supernet, data: Data) -> JsonObject:
    """`SearchResult.per_class`: the hold-out for every network that was taken out, by id, with
    inherited weights; the test split for the winner alone, with the weights it ends with: `test`.
    """
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
        "holdout_accuracy": _accuracies(compared, supernet, data.holdout),
        "test_accuracy": list(test.accuracy_by_class),
    }


def _accuracies(
    networks: Mapping[str, Architecture], supernet: Supernet, images: ImageSet
) -> dict[str, list[float | None]]:
    return {
        identifier: list(evaluate_model(supernet.extract(architecture), images).accuracy_by_class)
        for identifier, architecture in networks.items()
    }
