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

_LONG = 64  # times as long as wide: of longer images only the middle is brought to size


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
    """Decode an image file, whole or not at all, to RGB of 8 bits; transparency is dropped.

    Raises DataError naming what cannot be decoded.
    """
    if (len(content) if isinstance(content, bytes) else file_size(content)) == 0:
        raise DataError(f"{name} is empty (0 bytes): remove or replace it")
    # Another library in the process may have allowed truncated images; we never do.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            return _to_rgb(image)
    except UnidentifiedImageError:
        raise DataError(
            f"{name} is not an image that Pillow can read: remove or replace it"
        ) from None
    except MemoryError:
        raise  # not the image's fault
    except Exception as error:  # Pillow's plugins let pass whatever a damaged file provokes
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = reason.splitlines()[0]
        raise DataError(f"cannot decode {name} ({reason}): remove or replace it") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
        # 16 bits per pixel, which Pillow would cut off at 255 instead of scaling.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels, mode {image.mode}, have no known white level")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # or Pillow warns, once per image
    return image.convert("RGB")


def file_size(path: Path) -> int:
    """In bytes; -1 where there is none, as behind a broken link: opening it will say why."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def to_square(image: Image.Image, size: int, resample: Image.Resampling) -> npt.NDArray[np.uint8]:
    """Shorter side to `size`, centre crop: (3, size, size), uint8."""
    width, height = image.size
    if max(width, height) > _LONG * min(width, height):  # a line: whole, it would not fit anywhere
        kept = _LONG * min(width, height)
        left, top = max(0, (width - kept) // 2), max(0, (height - kept) // 2)
        image = image.crop((left, top, min(width, left + kept), min(height, top + kept)))
        width, height = image.size
    if (width, height) != (size, size):
        ratio = size / min(width, height)
        resized = max(size, round(width * ratio)), max(size, round(height * ratio))
        left, top = (resized[0] - size) // 2, (resized[1] - size) // 2
        image = image.resize(resized, resample).crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
