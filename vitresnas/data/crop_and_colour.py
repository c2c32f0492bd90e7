"""Random resized crop and colour jitter on whole batches, where the decoded images are at hand.

The same draws as timm's per-image transforms make (area, ratio, place; brightness, contrast,
saturation), bilinear, on the device: no image passes through Pillow again. Cropping images that are
already at the network's size only ever enlarges, so nothing needs to be low-pass filtered.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_RATIO = math.log(4 / 3)  # widths over heights from 3/4 to 4/3
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's mode L
CROP_DRAWS, COLOUR_DRAWS = 4, 3


def crop_maps(theta_B23: Tensor, draws_B4: Tensor, area: tuple[float, float]) -> Tensor:
    """`theta_B23`, inverse affine maps in grid_sample's -1..1, followed by a random crop.

    draws: uniform in 0..1. area: the crop's share of the image, least and most.
    """
    low, high = area
    area_B = low + (high - low) * draws_B4[:, 0]
    ratio_B = torch.exp((draws_B4[:, 1] * 2 - 1) * _RATIO)
    size_B2 = torch.stack([(area_B * ratio_B).sqrt(), (area_B / ratio_B).sqrt()], dim=1).clamp(
        max=1
    )
    centre_B2 = (1 - size_B2) * (draws_B4[:, 2:] * 2 - 1)
    cropped_B23 = theta_B23 * size_B2[:, :, None]
    return torch.cat([cropped_B23[:, :, :2], cropped_B23[:, :, 2:] + centre_B2[:, :, None]], dim=2)


def jitter(images_BCHW: Tensor, draws_B3: Tensor, strength: float) -> Tensor:
    """Images of 0..255 with brightness, contrast and saturation times 1 - strength .. 1 + strength.

    draws: uniform in 0..1. In this order for every image; timm shuffles it.
    """
    factors = (1 + strength * (draws_B3 * 2 - 1)).clamp(min=0).to(images_BCHW)
    brightness, contrast, saturation = factors.T[:, :, None, None, None]
    images_BCHW = (images_BCHW * brightness).clamp(0, 255)
    mean = _grey(images_BCHW).mean((2, 3), keepdim=True)
    images_BCHW = torch.lerp(mean.expand_as(images_BCHW), images_BCHW, contrast).clamp(0, 255)
    grey = _grey(images_BCHW).expand_as(images_BCHW)
    return torch.lerp(grey, images_BCHW, saturation).clamp(0, 255)


def _grey(images_BCHW: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    weights = torch.tensor(_GREY, device=images_BCHW.device).view(3, 1, 1)
    return (images_BCHW * weights).sum(1, keepdim=True)
