"""A model directory scored again, on the test split of its images."""

from __future__ import annotations

from pathlib import Path

from vitresnas.data import load_data
from vitresnas.data.by_class import images_by_class
from vitresnas.data.evaluate import evaluate_model
from vitresnas.data.unreadable import share_of
from vitresnas.errors import MismatchError
from vitresnas.files import JsonObject
from vitresnas.latency.request import resolve_device
from vitresnas.models.model_directory import load_model, read_card, update_card


def score(directory: Path, data: str, *, device: str = "auto") -> JsonObject:
    """The model's test accuracy on `data`, over all and class by class, also into its card.

    Raises MismatchError where the card tells of other images, or the classes are not as many.
    """
    model = load_model(directory, resolve_device(device))
    classes = model.architecture.classes
    card = read_card(directory)
    images = load_data(
        data, image_size=model.architecture.image_size, unreadable_share=share_of(card)
    )
    known = card.get("data", {}).get("id", images.id)
    if known != images.id or len(images.class_names) != classes:
        raise MismatchError(
            f"{data} ({images.id}, {len(images.class_names)} classes) are not the images that "
            f"{directory} was made with ({known}, {classes} classes), so it may have seen their "
            "test split: give --data the original images"
        )
    found = evaluate_model(model, images.test).to_json()
    update_card(directory, {"test": found})
    names = list(images.class_names)
    counts = images_by_class(images.test, classes)
    return {"test": found, "class_names": names, "test_images": counts}
