"""What the images are, from their number and a small sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitresnas.data.load import open_source, split_source
from vitresnas.data.sources import Images
from vitresnas.errors import DataError

SAMPLE = 48


@dataclass(frozen=True)
class Survey:
    """training, holdout, test: images of each split. side: the median shorter side in pixels.
    grey: no image of the sample has a colour. unequal: the largest class over the smallest."""

    name: str
    classes: int
    training: int
    holdout: int
    test: int
    side: int
    grey: bool
    unequal: float
    notes: tuple[str, ...]


def survey(spec: str) -> Survey:
    """Count `spec`, as load_data reads it, and look at some of its images. Raises DataError."""
    source = open_source(spec)
    (images, rest), holdout, test, notes = split_source(source, seed=0)
    sizes = np.bincount(images.labels[rest], minlength=len(source.class_names))
    side, grey = _look(images, rest[:: max(1, len(rest) // SAMPLE)].tolist())
    return Survey(
        name=source.name,
        classes=len(source.class_names),
        training=len(rest),
        holdout=len(holdout[1]),
        test=len(test[1]),
        side=side,
        grey=grey,
        unequal=float(sizes.max() / max(1, sizes.min())),
        notes=notes,
    )


def _look(images: Images, sample: list[int]) -> tuple[int, bool]:
    """The median shorter side, and whether all images of the sample are grey."""
    sides, grey = [], True
    for index in sample:
        try:
            image = images.read(index)
        except DataError:
            continue  # training decides what is done about it
        sides.append(min(image.size))
        red, green, blue = (np.asarray(band) for band in image.split())
        grey = grey and bool((red == green).all() and (green == blue).all())
    if not sides:
        raise DataError("not one image of a small sample can be read: give other --data")
    return int(np.median(sides)), grey
