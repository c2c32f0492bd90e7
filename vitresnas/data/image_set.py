"""ImageSet: a split that lives decoded on the device, for scoring many networks on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitresnas.data.sources import Images, to_square
from vitresnas.errors import DataError

# ImageNet's statistics, as every timm network expects; in units of 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SCORING_BATCH = 500  # in every score: sums and convolutions of other batches round otherwise


@dataclass(frozen=True, eq=False)
class ImageSet:
    """`images` uint8 (N, 3, S, S) and `labels` int64 (N,), on one device.

    left_out: how many more there are that cannot be read.
    """

    images: Tensor
    labels: Tensor
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> ImageSet:
        return ImageSet(self.images.to(device), self.labels.to(device), self.left_out)

    def batches(self, batch_size: int = SCORING_BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images (B, 3, S, S) and labels, in order; the last batch may be short."""
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            yield normalise(self.images[start:stop]), self.labels[start:stop]


def normalise(pixels_BCHW: Tensor) -> Tensor:
    """0..255 pixels, uint8 or float, to ImageNet's mean 0 and deviation 1, float32."""
    shape = (3, 1, 1)
    mean = torch.tensor(MEAN, device=pixels_BCHW.device).view(shape)
    std = torch.tensor(STD, device=pixels_BCHW.device).view(shape)
    return (pixels_BCHW.float() / 255 - mean) / std


def decode_all(images: Images, indices: Sequence[int], size: int) -> tuple[Tensor, dict[int, str]]:
    """Decode, resize and stack: uint8 (N, 3, size, size).

    Also what is wrong with the images that cannot be read, by position in ascending order; their
    pixels are black.
    """
    pixels = np.zeros((len(indices), 3, size, size), dtype=np.uint8)
    complaints: dict[int, str] = {}

    def decode_some(start: int) -> None:
        for position in range(start, min(start + 256, len(indices))):
            try:
                image = images.read(int(indices[position]))
            except DataError as error:
                complaints[position] = str(error)
            else:
                pixels[position] = to_square(image, size, images.resample)

    # Pillow releases Python's lock while it decodes, so threads are enough.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            for _ in pool.map(decode_some, range(0, len(indices), 256)):
                pass
        except BaseException:  # Ctrl-C need not wait for all images
            pool.shutdown(cancel_futures=True)
            raise
    return torch.from_numpy(pixels), dict(sorted(complaints.items()))
