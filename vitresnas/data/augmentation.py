"""Augmentation in two steps: per image with timm where Pillow is needed, then on whole batches.

The batch step (shift, scale, rotation, flip, erasing) runs on the device and costs next to nothing;
a recipe that stays with it needs no workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vitresnas.data.crop_and_colour import COLOUR_DRAWS, CROP_DRAWS, crop_maps, jitter
from vitresnas.data.image_set import normalise
from vitresnas.data.streams import generator, seeded

ImageTransform = Callable[[Image.Image], object]


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images; the defaults do nothing."""

    # On batches
    shift: float = 0.0  # up to this fraction of the side, both ways; whole pixels if nothing scales
    scale: float = 0.0  # up to this much larger or smaller
    rotate: float = 0.0  # degrees, both ways
    flip: float = 0.0  # probability of a left-right flip
    erase: float = 0.0  # probability of timm's random erasing
    # Per image; on batches where decoded images are held and there is no policy
    crop: tuple[float, float] | None = None  # area range of a random resized crop
    policy: str = ""  # timm's auto-augment text, such as "rand-m9-mstd0.5-inc1"
    colour: float = 0.0  # colour jitter; timm leaves it out where there is a policy

    @property
    def per_image(self) -> bool:
        """Whether something is done that Pillow can do image by image."""
        return bool(self.crop or self.policy or self.colour)


def image_transform(augmentation: Augmentation, size: int) -> ImageTransform | None:
    """timm's transform from a Pillow image to uint8 (3, size, size); None where there is none."""
    if not augmentation.per_image:
        return None
    from timm.data.transforms_factory import transforms_imagenet_train

    # Without a crop range the image is only brought to size; 1..1 keeps it whole.
    transform = transforms_imagenet_train(
        img_size=size,
        scale=augmentation.crop or (1.0, 1.0),
        ratio=(3 / 4, 4 / 3) if augmentation.crop else (1.0, 1.0),
        hflip=0.0,
        color_jitter=augmentation.colour or None,
        auto_augment=augmentation.policy or None,
        interpolation="bicubic",
        use_prefetcher=True,
    )
    for step in transform.transforms:
        for operation in getattr(step, "ops", ()):
            if operation.name.startswith("Posterize"):
                operation.level_fn = _at_least_one_bit(operation.level_fn)
    return cast(ImageTransform, transform)


def _at_least_one_bit(level_to_bits: Callable[..., tuple[int]]) -> Callable[..., tuple[int]]:
    """timm may ask to keep 0 bits of a pixel, which newer Pillows refuse."""
    return lambda *arguments: (max(1, level_to_bits(*arguments)[0]),)


# How far from an image's own draws those of its next showing in the same epoch lie.
_STRIDE = 7919


class BatchAugmentation:
    """The batch step. Every showing's draws depend on (seed, epoch, its number) alone.

    everything: crop and colour are part of it, because no image passes through Pillow before.
    """

    def __init__(
        self, augmentation: Augmentation, count: int, seed: int, *, everything: bool = False
    ) -> None:
        self.augmentation = augmentation
        self._crop = augmentation.crop if everything else None
        self._colour = augmentation.colour if everything else 0.0
        self._extra_ND = torch.empty(0)
        self._count = count
        self._seed = seed
        self._epoch = -1
        self._draws_ND = torch.empty(0)

    def __call__(self, pixels_BCHW: Tensor, shown_B: Tensor, epoch: int, step: int) -> Tensor:
        """uint8 (B, 3, S, S) of these showings (sampling.py) to normalised images, same shape."""
        if self._epoch != epoch:
            # One table per epoch: cheaper than a generator per image, and just as stateless.
            table = generator(self._seed, "augment", epoch)
            self._draws_ND = torch.rand(self._count, 5, generator=table)
            if self._crop or self._colour:
                extra = generator(self._seed, "crop and colour", epoch)
                draws = CROP_DRAWS + COLOUR_DRAWS
                self._extra_ND = torch.rand(self._count, draws, generator=extra)
            self._epoch = epoch
        # A repeated image borrows the draws of another one: no larger table, however rare it is.
        rows_B = (shown_B.cpu() + shown_B.cpu() // self._count * _STRIDE) % self._count
        images_BCHW = pixels_BCHW.float()
        if self._colour:
            draws_B3 = self._extra_ND[rows_B, CROP_DRAWS:].to(images_BCHW.device)
            images_BCHW = jitter(images_BCHW, draws_B3, self._colour)
        theta_B23 = self._transforms(self._draws_ND[rows_B], pixels_BCHW.shape[-1])
        if self._crop:
            same_B23 = torch.eye(2, 3).expand(len(rows_B), 2, 3)
            draws_B4 = self._extra_ND[rows_B, :CROP_DRAWS]
            maps_B23 = same_B23 if theta_B23 is None else theta_B23
            theta_B23 = crop_maps(maps_B23, draws_B4, self._crop)
        if theta_B23 is not None:
            grid_BHW2 = F.affine_grid(
                theta_B23.to(images_BCHW.device), list(images_BCHW.shape), align_corners=False
            )
            # Black fills what moves in, as in a padded crop.
            images_BCHW = F.grid_sample(images_BCHW, grid_BHW2, align_corners=False)
        images_BCHW = normalise(images_BCHW)
        return self._erase(images_BCHW, epoch, step)

    def _transforms(self, draws_B5: Tensor, side: int) -> Tensor | None:
        """Inverse affine maps (B, 2, 3) in grid_sample's -1..1 coordinates; None for identities."""
        wanted = self.augmentation
        if not (wanted.shift or wanted.scale or wanted.rotate or wanted.flip):
            return None
        shift_B2 = (draws_B5[:, :2] * 2 - 1) * wanted.shift
        if not (wanted.scale or wanted.rotate):
            shift_B2 = torch.round(shift_B2 * side) / side  # nothing to interpolate: keep it sharp
        scale_B = torch.exp((draws_B5[:, 2] * 2 - 1) * math.log1p(wanted.scale))
        angle_B = (draws_B5[:, 3] * 2 - 1) * math.radians(wanted.rotate)
        mirror_B = torch.where(draws_B5[:, 4] < wanted.flip, -1.0, 1.0)
        cos_B, sin_B = torch.cos(angle_B) * scale_B, torch.sin(angle_B) * scale_B
        rows = [
            torch.stack([cos_B * mirror_B, -sin_B, shift_B2[:, 0] * 2], dim=1),
            torch.stack([sin_B * mirror_B, cos_B, shift_B2[:, 1] * 2], dim=1),
        ]
        return torch.stack(rows, dim=1)

    def _erase(self, images_BCHW: Tensor, epoch: int, step: int) -> Tensor:
        if not self.augmentation.erase:
            return images_BCHW
        from timm.data.random_erasing import RandomErasing

        erase = RandomErasing(self.augmentation.erase, mode="const", device=str(images_BCHW.device))
        with seeded(self._seed, "erase", epoch, step):
            return cast(Tensor, erase(images_BCHW))
