"""Soft targets, and timm's Mixup and CutMix, each batch with its own random stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from vitresnas.data.streams import seeded


@dataclass(frozen=True)
class Mixing:
    """timm's mixing of two images of a batch; the defaults leave images alone."""

    mixup: float = 0.0  # Beta parameter; 0 switches it off
    cutmix: float = 0.0
    probability: float = 1.0
    smoothing: float = 0.1  # of the labels, with or without mixing

    @property
    def active(self) -> bool:
        return (self.mixup > 0 or self.cutmix > 0) and self.probability > 0


class Mixer:
    """images (B, 3, S, S), labels (B,) -> images, soft targets (B, K)."""

    def __init__(self, mixing: Mixing, classes: int, seed: int) -> None:
        from timm.data.mixup import Mixup, mixup_target

        self.mixing = mixing
        self._classes = classes
        self._seed = seed
        self._target = mixup_target
        self._mixup = Mixup(
            mixup_alpha=mixing.mixup,
            cutmix_alpha=mixing.cutmix,
            prob=mixing.probability,
            label_smoothing=mixing.smoothing,
            num_classes=classes,
        )

    def __call__(
        self, images_BCHW: Tensor, labels_B: Tensor, epoch: int, step: int
    ) -> tuple[Tensor, Tensor]:
        # Mixup pairs the first image with the last, so it needs an even number.
        if self.mixing.active and len(images_BCHW) % 2 == 0:
            with seeded(self._seed, "mix", epoch, step):
                return cast(tuple[Tensor, Tensor], self._mixup(images_BCHW, labels_B))
        targets_BK = self._target(labels_B, self._classes, 1.0, self.mixing.smoothing)
        return images_BCHW, cast(Tensor, targets_BK)
