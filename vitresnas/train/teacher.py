"""A frozen network that says what a distillation token is to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitresnas.data.image_set import MEAN, STD
from vitresnas.errors import InputError


class Teacher:
    """Images normalised as ours (B, 3, S, S) to logits (B, K); follows the images' device.

    name: a network of timm, with its published weights, or a model directory. pretrained: False to
    time a network of timm without them. Raises InputError where the weights cannot be had or images
    of this size do not fit, MismatchError for classes that are not the data's.
    """

    def __init__(
        self, name: str, classes: int, image_size: int, *, pretrained: bool = True
    ) -> None:
        from vitresnas.models.timm_weights import load_teacher  # timm takes a second to import

        with torch.random.fork_rng(devices=[]):  # timm draws weights before it reads them
            self.model: nn.Module = load_teacher(name, classes, pretrained=pretrained)
        mean, std = _normalisation(self.model)
        self._scale_311 = (torch.tensor(STD) / torch.tensor(std)).view(3, 1, 1)
        shift = (torch.tensor(MEAN) - torch.tensor(mean)) / torch.tensor(std)
        self._shift_311 = shift.view(3, 1, 1)
        try:
            self(torch.zeros(1, 3, image_size, image_size))
        except (AssertionError, RuntimeError, InputError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"the teacher {name} cannot read images of {image_size} pixels ({reason}): choose "
                "one that can, such as a convolutional network"
            ) from None

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor) -> Tensor:
        like = next(self.model.parameters())
        if like.device != images_BCHW.device:
            self.model.to(images_BCHW.device)
            self._scale_311 = self._scale_311.to(images_BCHW.device)
            self._shift_311 = self._shift_311.to(images_BCHW.device)
        seen_BCHW = images_BCHW.to(like.dtype) * self._scale_311 + self._shift_311
        logits_BK: Tensor = self.model(seen_BCHW)
        return logits_BK


def _normalisation(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation that a network of timm was trained with; ours where it says none."""
    told = getattr(model, "pretrained_cfg", None) or {}
    return tuple(told.get("mean", MEAN)), tuple(told.get("std", STD))
