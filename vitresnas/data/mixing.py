"""Soft targets, and images mixed with each other; each batch draws from its own random stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitresnas.data.streams import seeded
from vitresnas.data.token_mixing import mix_tokens
from vitresnas.errors import InputError

Targets = Mapping[str, Tensor]


@dataclass(frozen=True)
class Mixing:
    """timm's Mixup and CutMix, or the paper's token-level mixing; the defaults mix nothing."""

    mixup: float = 0.0  # Beta parameter; 0 switches it off
    cutmix: float = 0.0
    probability: float = 1.0
    smoothing: float = 0.1  # of the labels, with or without mixing
    tokens: bool = False  # half CutMix along patches, half Mixup, and a label for every patch

    def __post_init__(self) -> None:
        if self.tokens and not (self.mixup > 0 and self.cutmix > 0 and self.probability == 1):
            raise InputError(
                f"token-level mixing always uses both: mixup is {self.mixup}, cutmix {self.cutmix} "
                f"and probability {self.probability}; use mixup and cutmix above 0, probability 1"
            )

    @property
    def active(self) -> bool:
        return (self.mixup > 0 or self.cutmix > 0) and self.probability > 0


class Mixer:
    """images (B, 3, S, S), labels (B,) -> images and soft targets by head.

    "class": (B, K); with token-level mixing also "patch": (B, N, K). groups: into how many equal
    groups, one after the other, the images fall; grid: the side of the last stage's patch grid, so
    that N is its square. Both matter to token-level mixing only.
    """

    def __init__(
        self, mixing: Mixing, classes: int, seed: int, *, groups: int = 1, grid: int = 1
    ) -> None:
        from timm.data.mixup import Mixup, mixup_target

        self.mixing = mixing
        self._classes = classes
        self._seed = seed
        self._groups, self._grid = groups, grid
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
    ) -> tuple[Tensor, Targets]:
        mixing = self.mixing
        if mixing.active and not mixing.tokens:
            with seeded(self._seed, "mix", epoch, step):
                return self._in_pairs(images_BCHW, labels_B)
        targets_BK = self._target(labels_B, self._classes, 1.0, mixing.smoothing)
        if not mixing.tokens:
            return images_BCHW, {"class": targets_BK}
        images_BCHW, targets_BK, patches_BNK = mix_tokens(
            images_BCHW,
            targets_BK,
            groups=self._groups,
            grid=self._grid,
            cutmix=mixing.cutmix,
            mixup=mixing.mixup,
            place=(self._seed, "mix", epoch, step),
        )
        return images_BCHW, {"class": targets_BK, "patch": patches_BNK}

    def _in_pairs(self, images_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Targets]:
        """timm's Mixup pairs the first image with the last: of an odd number one stays as it is."""
        even = len(images_BCHW) // 2 * 2
        if even == len(images_BCHW):
            images_BCHW, targets_BK = self._mixup(images_BCHW, labels_B)
            return images_BCHW, {"class": targets_BK}
        rest_1K = self._target(labels_B[even:], self._classes, 1.0, self.mixing.smoothing)
        if not even:
            return images_BCHW, {"class": rest_1K}
        mixed_BCHW, mixed_BK = self._mixup(images_BCHW[:even], labels_B[:even])
        images_BCHW = torch.cat((mixed_BCHW, images_BCHW[even:]))
        return images_BCHW, {"class": torch.cat((mixed_BK, rest_1K))}
