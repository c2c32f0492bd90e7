"""TrainingImages: the split that is trained on, in memory where it fits, read lazily where not."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vitresnas.data.image_set import decode_all
from vitresnas.data.sources import Images, to_square
from vitresnas.data.splits import Indices

MEMORY_BUDGET_BYTES = 2**30  # CIFAR-10 takes 0.14 GB, 30,000 images of 64 pixels 0.37 GB


class TrainingImages(Dataset[tuple[Tensor, int]]):
    """Un-augmented training images: item i is (uint8 (3, S, S), label).

    Up to `budget` bytes they are decoded once into `pixels`; beyond that, image by image.
    """

    def __init__(
        self, images: Images, indices: Indices, size: int, budget: int = MEMORY_BUDGET_BYTES
    ) -> None:
        self.images = images
        self.indices = indices
        self.size = size
        self.labels = torch.from_numpy(images.labels[indices])
        self.fits_in_memory = len(indices) * 3 * size * size <= budget

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.pixels is not None:
            return self.pixels[index], int(self.labels[index])
        square = to_square(self.image(index), self.size, self.images.resample)
        return torch.from_numpy(square), int(self.labels[index])

    @cached_property
    def pixels(self) -> Tensor | None:
        """All images, uint8 (N, 3, S, S), decoded on first use; None beyond the budget."""
        if not self.fits_in_memory:
            return None
        return decode_all(self.images, self.indices.tolist(), self.size)

    def image(self, index: int) -> Image.Image:
        """Image `index` as Pillow's RGB: from memory at S x S where held, else as stored."""
        if self.pixels is not None:
            return Image.fromarray(np.asarray(self.pixels[index].permute(1, 2, 0)))
        return self.images.read(int(self.indices[index]))
