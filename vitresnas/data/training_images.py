"""TrainingImages: the split that is trained on, in memory where it fits, read lazily where not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vitresnas.data.image_set import decode_all
from vitresnas.data.sources import Images, to_square
from vitresnas.data.splits import Indices
from vitresnas.data.unreadable import UNREADABLE_SHARE, tolerate
from vitresnas.errors import DataError

_NEIGHBOURS = 16  # tried at least before an image that cannot be read is given up
MEMORY_BUDGET_BYTES = 2**30  # CIFAR-10 takes 0.14 GB, 30,000 images of 64 pixels 0.37 GB


@dataclass(frozen=True)
class Found:
    """An image as Pillow's RGB, the position it stands at, and why it stands in for another."""

    image: Image.Image
    position: int
    complaint: str = ""


class TrainingImages(Dataset[tuple[Tensor, int]]):
    """Un-augmented training images: item i is (uint8 (3, S, S), label).

    Up to `budget` bytes they are decoded once into `pixels`; beyond that, image by image. The next
    one stands in for an image that cannot be read, with its own label; where more than
    `unreadable_share` of all cannot be read, reading raises DataError.
    """

    def __init__(
        self,
        images: Images,
        indices: Indices,
        size: int,
        budget: int = MEMORY_BUDGET_BYTES,
        unreadable_share: float = UNREADABLE_SHARE,
    ) -> None:
        self.images = images
        self.indices = indices
        self.size = size
        self.labels = torch.from_numpy(images.labels[indices])
        self.unreadable_share = unreadable_share
        self.fits_in_memory = len(indices) * 3 * size * size <= budget

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        square, position, _ = self.square(index)
        return square, int(self.labels[position])

    def square(self, index: int) -> tuple[Tensor, int, str]:
        """Item `index`, uint8 (3, S, S), with position and complaint as in Found."""
        if self._decoded is not None:
            pixels, positions = self._decoded
            return pixels[index], int(positions[index]), ""
        found = self.find(index)
        square = to_square(found.image, self.size, self.images.resample)
        return torch.from_numpy(square), found.position, found.complaint

    @property
    def pixels(self) -> Tensor | None:
        """All images, uint8 (N, 3, S, S), decoded on first use; None beyond the budget."""
        return None if self._decoded is None else self._decoded[0]

    @property
    def positions(self) -> Tensor:
        """Whose pixels and label stand at each position of `pixels`: (N,)."""
        assert self._decoded is not None
        return self._decoded[1]

    def find(self, index: int) -> Found:
        """Image `index`: from memory at S x S where held, else as stored."""
        if self._decoded is not None:
            pixels, positions = self._decoded
            image = Image.fromarray(np.asarray(pixels[index].permute(1, 2, 0)))
            return Found(image, int(positions[index]))
        complaint = ""
        allowed = int(self.unreadable_share * len(self))  # they may all lie together
        for position in range(index, index + max(_NEIGHBOURS, allowed + 1)):
            position %= len(self)
            try:
                image = self.images.read(int(self.indices[position]))
            except DataError as error:
                complaint = complaint or str(error)
            else:
                return Found(image, position, complaint)
        raise DataError(complaint)

    @cached_property
    def _decoded(self) -> tuple[Tensor, Tensor] | None:
        if not self.fits_in_memory:
            return None
        pixels, complaints = decode_all(self.images, self.indices.tolist(), self.size)
        tolerate(list(complaints.values()), len(self), self.unreadable_share, "training images")
        positions = torch.arange(len(self))
        for broken in complaints:
            position = broken
            while position in complaints:
                position = (position + 1) % len(self)
            positions[broken], pixels[broken] = position, pixels[position]
        return pixels, positions
