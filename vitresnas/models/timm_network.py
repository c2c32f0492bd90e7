"""ViTRes as timm's tools expect a classifier: heads that can be replaced, features by stage.

B images, S patch grid, N patches, C width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from vitresnas.errors import InputError
from vitresnas.models.features import Features
from vitresnas.models.vit_res import INITIAL_STD, ViTRes, check_image, combine_heads
from vitresnas.space.architecture import Architecture

# What timm's pre-processing reads off a network of ours.
TIMM_CONFIG: dict[str, Any] = {
    "url": "",
    "input_size": (3, 224, 224),
    "fixed_input_size": True,
    "num_classes": 1000,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "interpolation": "bicubic",
    "first_conv": "embedding.trunk.conv1.0",
    "classifier": "head",
}


class TimmViTRes(ViTRes):
    """ViTRes with the methods that timm's tools expect of a classifier and of a backbone."""

    default_cfg = TIMM_CONFIG
    pretrained_cfg = TIMM_CONFIG

    def __init__(
        self, architecture: Architecture, *, drop_path: float = 0.0, patch_head: bool = False
    ) -> None:
        super().__init__(architecture, drop_path=drop_path, patch_head=patch_head)
        self.feature_info = [
            {
                "num_chs": stage.embed,
                "reduction": architecture.patch_size << index,
                "module": f"stages.{index}",
            }
            for index, stage in enumerate(architecture.stages)
        ]

    @property
    def num_classes(self) -> int:
        return self.architecture.classes

    @property
    def num_features(self) -> int:
        return self.architecture.stages[-1].embed

    @property
    def head_hidden_size(self) -> int:
        return self.num_features

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        """The classifier, or a pair with that of the distillation token."""
        if self.distillation_head is None:
            return self.head
        return self.head, self.distillation_head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Fresh classifiers for other classes."""
        check_classes(num_classes)
        check_pooling(global_pool)
        self.architecture = replace(self.architecture, classes=num_classes)
        for name in ("head", "distillation_head", "patch_head"):
            old = getattr(self, name)
            if old is not None:
                setattr(self, name, _fresh_like(old, num_classes))

    def at_resolution(self, image_size: int) -> TimmViTRes:
        new = super().at_resolution(image_size)
        assert isinstance(new, TimmViTRes)  # a copy of this network
        size = (self.architecture.channels, image_size, image_size)
        new.default_cfg = new.pretrained_cfg = {**self.pretrained_cfg, "input_size": size}
        return new

    def forward_head(self, features: Features, pre_logits: bool = False) -> Any:
        """What `forward_features` returned to logits (B, K), or to the class token (B, C)."""
        if pre_logits:
            return features.pooled
        return combine_heads(self.heads(features.tokens, patches=False), self.training)

    def forward_intermediates(
        self,
        images_BCHW: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The patches after the blocks of each stage, (B, C, S, S) or, as NLC, (B, N, C).

        indices: the stages to take; the last so many for a number, all for None.
        norm: also apply the final LayerNorm, which fits the last stage alone.
        Returns (what `forward_features` returns, the list), or the list alone; with `stop_early`
        the stages behind the last one taken do not run, and there is only the list.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise InputError(f"output_fmt is {output_fmt!r}: use NCHW or NLC")
        taken, last = feature_take_indices(len(self.stages), indices)
        check_image(images_BCHW, self.architecture)
        x_BNC = self.embedding(images_BCHW)
        stages = []
        for stage in self.stages[: last + 1] if stop_early or intermediates_only else self.stages:
            x_BNC = stage(x_BNC)
            stages.append(x_BNC)
        ends_whole = len(stages) == len(self.architecture.stages)
        maps = []
        for index in taken:
            tokens_BNC = stages[index]
            if norm and index == len(self.architecture.stages) - 1:
                tokens_BNC = self.norm(tokens_BNC)
            patches_BNC = tokens_BNC[:, self.architecture.prefix_tokens :]
            if output_fmt == "NCHW":
                side = self.architecture.grids[index]
                maps.append(patches_BNC.transpose(1, 2).unflatten(2, (side, side)).contiguous())
            else:
                maps.append(patches_BNC)
        if intermediates_only or not ends_whole:
            return maps
        return Features(tuple(stages), self.norm(x_BNC)), maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what `forward_intermediates(indices=...)` never runs; the stages kept, from 0."""
        taken, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_norm or shortened:
            self.norm = nn.Identity()  # type: ignore[assignment]
        if prune_head or shortened:
            self.head = nn.Identity()  # type: ignore[assignment]
            self.distillation_head = self.patch_head = None
        return list(taken)


def check_classes(num_classes: int) -> None:
    """Raise InputError where there is nothing to classify."""
    if num_classes < 1:
        raise InputError(
            f"num_classes is {num_classes}: use at least 1; for features without a classifier "
            "call model.forward_features(images).pooled"
        )


def check_pooling(global_pool: str | None) -> None:
    """Raise InputError for a pooling that this network does not have."""
    if global_pool not in (None, "token"):
        raise InputError(
            f"global_pool is {global_pool!r}: this network classifies its class token ('token')"
        )


def _fresh_like(old: nn.Linear, classes: int) -> nn.Linear:
    new = nn.Linear(old.in_features, classes, device=old.weight.device, dtype=old.weight.dtype)
    nn.init.trunc_normal_(new.weight, std=INITIAL_STD)
    nn.init.zeros_(new.bias)
    return new
