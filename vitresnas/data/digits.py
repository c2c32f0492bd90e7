"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels that need no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitresnas.data.sources import Source
from vitresnas.data.splits import Labels

HOLDOUT, TEST = 300, 360


@dataclass(frozen=True, eq=False)
class GreyImages:
    """Small grey images in memory, (N, height, width) uint8; one channel is read as three equal."""

    pixels: npt.NDArray[np.uint8]
    labels: Labels
    resample: Image.Resampling = Image.Resampling.BILINEAR

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")


def open_digits() -> Source:
    """All 1,797 digits as one split; values 0..16 become 0..255."""
    from sklearn.datasets import load_digits  # an import of a second that other data never needs

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    fingerprint = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    names = tuple(str(name) for name in digits.target_names)
    images = {"train": GreyImages(pixels, labels)}
    return Source("digits", names, images, fingerprint, HOLDOUT, TEST)
