"""Where images come from: labelled images by position, and the splits their files already have."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from vitresnas.data.splits import Labels
from vitresnas.errors import DataError


class Images(Protocol):
    """Labelled images, decoded one at a time."""

    @property
    def labels(self) -> Labels: ...

    @property
    def resample(self) -> Image.Resampling: ...

    def read(self, index: int) -> Image.Image:
        """The image as RGB. Raises DataError naming the one that cannot be decoded."""


@dataclass(frozen=True, eq=False)
class Source:
    """Splits by name ("train", and "validation" and "test" where the files have them).

    `holdout_size` and `test_size` are set where a data set prescribes them.
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Images]
    fingerprint: str
    holdout_size: int | None = None
    test_size: int | None = None


def decode(content: bytes | Path, name: str) -> Image.Image:
    """Decode an image file, whole or not at all; grey, palette and alpha become RGB."""
    # Another library in the process may have allowed truncated images; we never do.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            rgb: Image.Image = image.convert("RGB")
            return rgb
    except UnidentifiedImageError:
        raise DataError(
            f"{name} is not an image that Pillow can read: remove or replace it"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot decode {name} ({error}): remove or replace it") from None


def to_square(image: Image.Image, size: int, resample: Image.Resampling) -> npt.NDArray[np.uint8]:
    """Shorter side to `size`, centre crop: (3, size, size), uint8."""
    width, height = image.size
    if (width, height) != (size, size):
        ratio = size / min(width, height)
        resized = max(size, round(width * ratio)), max(size, round(height * ratio))
        left, top = (resized[0] - size) // 2, (resized[1] - size) // 2
        image = image.resize(resized, resample).crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
