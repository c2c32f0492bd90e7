"""Images that only cost what real ones cost, for a look at a recipe whose data is elsewhere."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from vitresnas.data.image_set import ImageSet
from vitresnas.data.load import Data
from vitresnas.data.sources import decode
from vitresnas.data.splits import Labels, holdout_size
from vitresnas.data.training_images import TrainingImages

SMALL_SIDE = 112  # networks that read smaller images are for CIFAR-10's


@dataclass(frozen=True, eq=False)
class JpegImages:
    """One JPEG file, decoded again for every image."""

    labels: Labels
    content: bytes
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def read(self, index: int) -> Image.Image:
        return decode(self.content, "the stand-in image")


def stand_in(image_size: int) -> Data:
    """As many images and classes as ImageNet has, or CIFAR-10 where networks read small images.

    All are the same soft noise, a JPEG of 500 x 375 pixels or of the size of CIFAR's.
    """
    if image_size >= SMALL_SIDE:
        name, images, classes, shape = "ImageNet", 1_281_167, 1000, (500, 375)
    else:
        name, images, classes, shape = "CIFAR-10", 50_000, 10, (32, 32)
    labels = np.arange(images, dtype=np.int64) % classes
    labels = labels[: -holdout_size(labels)]
    train = TrainingImages(
        JpegImages(labels, _noise(shape)), np.arange(len(labels)), image_size, budget=0
    )
    nothing = ImageSet(
        torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8), torch.zeros(1).long()
    )
    return Data(
        name=f"noise in place of {name}",
        id="stand-in",
        class_names=tuple(map(str, range(classes))),
        image_size=image_size,
        train=train,
        holdout=nothing,
        notes=(),
        read_test=lambda: nothing,
    )


def _noise(shape: tuple[int, int]) -> bytes:
    """Blurred, for photographs compress to a fraction of what noise does."""
    width, height = shape
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(shape, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()
