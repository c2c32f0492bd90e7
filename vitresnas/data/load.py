"""load_data: from what the user types to three splits that never touch each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from vitresnas.data.digits import open_digits
from vitresnas.data.folder import open_folder
from vitresnas.data.image_set import ImageSet, decode_all
from vitresnas.data.parquet import find_parquet_files, open_parquet
from vitresnas.data.sources import Images, Source
from vitresnas.data.splits import (
    TEST_FRACTION,
    Indices,
    check_class_sizes,
    draw_stratified,
    holdout_size,
)
from vitresnas.data.training_images import MEMORY_BUDGET_BYTES, TrainingImages
from vitresnas.data.unreadable import UNREADABLE_SHARE, tolerate
from vitresnas.data.webdataset import find_shards, open_shards
from vitresnas.errors import DataError
from vitresnas.files import digest

Part = tuple[Images, Indices]


@dataclass(frozen=True, eq=False)
class Data:
    """Three disjoint splits; `id` is the digest of everything that shaped them.

    `train` is augmented by the recipe, `holdout` scores sub-networks, `test` is only reported and
    decoded when first asked for. `notes` tells what was decided for the user.
    """

    name: str
    id: str
    class_names: tuple[str, ...]
    image_size: int
    train: TrainingImages
    holdout: ImageSet
    notes: tuple[str, ...]
    read_test: Callable[[], ImageSet]

    @cached_property
    def test(self) -> ImageSet:
        return self.read_test()


def load_data(
    spec: str | Path | None,
    *,
    image_size: int,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET_BYTES,
    unreadable_share: float = UNREADABLE_SHARE,
) -> Data:
    """scikit-learn's digits (None or "digits"), or a folder of images, Parquet files or tar shards.

    Images come out as `image_size` x `image_size` with 3 channels. Up to `memory_budget` bytes the
    training images are held decoded. Up to `unreadable_share` of each split may be images that
    cannot be read. Raises DataError, one sentence naming what cannot be used.
    """
    source = open_source(spec)
    train, holdout, test, notes = split_source(source, seed)
    identity = {"source": source.fingerprint, "image_size": image_size, "seed": seed}
    identity["sizes"] = [len(part[1]) for part in (train, holdout, test)]
    return Data(
        name=source.name,
        id=digest(identity)[:12],
        class_names=source.class_names,
        image_size=image_size,
        train=TrainingImages(*train, image_size, memory_budget, unreadable_share),
        holdout=_image_set(holdout, image_size, unreadable_share, "hold-out images"),
        notes=notes,
        read_test=lambda: _image_set(test, image_size, unreadable_share, "test images"),
    )


def open_source(spec: str | Path | None) -> Source:
    """The files behind what the user typed, unread. Raises DataError."""
    if spec is None or str(spec) == "digits":
        return open_digits()
    try:
        path = Path(spec).expanduser()
        if not path.exists():
            raise DataError(
                f"there is no data at {str(spec)!r}: give digits, a folder with one folder of "
                "images per class, or a folder of Parquet files or of WebDataset shards (.tar)"
            )
        return _open(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~somebody who is not there
        reason = getattr(error, "strerror", None) or error
        where = getattr(error, "filename", None) or spec
        raise DataError(
            f"cannot read {where} ({reason}): check the path, and whether you may read it"
        ) from None


def _open(path: Path) -> Source:
    files = find_parquet_files(path)
    if files:
        return open_parquet(path, files)
    if not path.is_dir() and path.suffix != ".tar":
        raise DataError(f"{path} is a file, expected a folder of images, Parquet files or shards")
    shards = find_shards(path)
    if shards:
        return open_shards(path, shards)
    return open_folder(path)


def split_source(source: Source, seed: int) -> tuple[Part, Part, Part, tuple[str, ...]]:
    """Training, hold-out and test positions, and notes on the splits that had to be made."""
    images = source.splits["train"]
    rest = np.arange(len(images.labels))
    given = source.splits.get("test") or source.splits.get("validation")
    check_class_sizes(
        images.labels, source.class_names, 2 if given else 3, f"the training data of {source.name}"
    )
    notes = []
    if given is not None:
        test = given, np.arange(len(given.labels))
    else:
        fraction = max(round(len(rest) * TEST_FRACTION), len(source.class_names))
        drawn, rest = draw_stratified(images.labels, source.test_size or fraction, seed, "test")
        test = images, drawn
        if source.test_size is None:
            notes.append(
                f"{source.name} has no test split: {len(drawn)} of its images were set aside as one"
            )
    if "test" in source.splits and "validation" in source.splits:
        validation = source.splits["validation"]
        holdout: Part = validation, np.arange(len(validation.labels))
    else:
        labels = images.labels[rest]
        size = source.holdout_size or holdout_size(labels)
        drawn, kept = draw_stratified(labels, size, seed, "holdout")
        holdout, rest = (images, rest[drawn]), rest[kept]
    return (images, rest), holdout, test, tuple(notes)


def _image_set(part: Part, size: int, unreadable_share: float, what: str) -> ImageSet:
    images, indices = part
    labels = torch.from_numpy(images.labels[indices])
    pixels, complaints = decode_all(images, indices.tolist(), size)
    if not complaints:
        return ImageSet(pixels, labels)
    tolerate(list(complaints.values()), len(indices), unreadable_share, what)
    readable = torch.ones(len(indices), dtype=torch.bool)
    readable[list(complaints)] = False
    return ImageSet(pixels[readable], labels[readable], len(complaints))
