"""What the images are: as many as time allows are read, so that broken ones are found early."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitresnas.data.load import Part, open_source, split_source
from vitresnas.data.unreadable import tolerate
from vitresnas.errors import DataError
from vitresnas.latency.cores import cores

_AT_A_TIME = 256
_GRID = 32  # rows and columns that are looked at for a colour


@dataclass(frozen=True)
class Survey:
    """training, holdout, test: images of each split. side: the median shorter side in pixels.
    grey: no image has a colour. unequal: the largest class over the smallest."""

    name: str
    classes: int
    training: int
    holdout: int
    test: int
    side: int
    grey: bool
    unequal: float
    notes: tuple[str, ...]


def survey(spec: str, unreadable_share: float, seconds: float = 60.0) -> Survey:
    """Count the images of `spec`, as load_data reads it, and read them all.

    After `seconds` the rest is left unread, which a note tells. Raises DataError, as training
    would later, where more than `unreadable_share` of a split cannot be read.
    """
    source = open_source(spec)
    (images, rest), holdout, test, notes = split_source(source, seed=0)
    sizes = np.bincount(images.labels[rest], minlength=len(source.class_names))
    parts = {"hold-out images": holdout, "test images": test, "training images": (images, rest)}
    deadline = time.monotonic() + seconds
    sides: list[int] = []
    grey, unread = True, 0
    for what, part in parts.items():
        looks = _look(part, deadline)
        complaints = [look for look in looks if isinstance(look, str)]
        tolerate(complaints, len(part[1]), unreadable_share, what)
        sides += [look[0] for look in looks if not isinstance(look, str)]
        grey = grey and all(look[1] for look in looks if not isinstance(look, str))
        unread += len(part[1]) - len(looks)
    if not sides:
        raise DataError(
            f"none of the images of {source.name} can be read: check them, or give other --data"
        )
    if unread:
        notes += (f"{unread} images were not looked at: there are many, and time is short",)
    return Survey(
        name=source.name,
        classes=len(source.class_names),
        training=len(rest),
        holdout=len(holdout[1]),
        test=len(test[1]),
        side=int(np.median(sides)),
        grey=grey,
        unequal=float(sizes.max() / max(1, sizes.min())),
        notes=notes,
    )


def _look(part: Part, deadline: float) -> Sequence[tuple[int, bool] | str]:
    """(shorter side, whether it is grey) of every image, or what is wrong with it; in an order
    that does not begin with one class, and only so many as there is time for, but some."""
    images, indices = part
    order = np.random.default_rng(0).permutation(indices).tolist()

    def look(index: int) -> tuple[int, bool] | str:
        try:
            image = images.read(index)
        except DataError as error:
            return str(error)
        return min(image.size), _is_grey(image)

    looks: list[tuple[int, bool] | str] = []
    # Pillow releases Python's lock while it decodes, so threads are enough.
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        for start in range(0, len(order), _AT_A_TIME):
            if looks and time.monotonic() > deadline:
                break
            looks += pool.map(look, order[start : start + _AT_A_TIME])
    return looks


def _is_grey(image: Image.Image) -> bool:
    stride = max(1, min(image.size) // _GRID)
    pixels_HWC = np.asarray(image)[::stride, ::stride]
    return bool((pixels_HWC == pixels_HWC[..., :1]).all())
