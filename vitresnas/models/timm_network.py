"""ViTRes as timm's tools expect a classifier: heads that can be replaced, features by stage.

B images, S patch grid, N patches, C width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from timm.models._features import feature_take_indices
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from vitresnas.errors import InputError
from vitresnas.models.timm_config import first_convolution, timm_config
from vitresnas.models.vit_res import INITIAL_STD, ViTRes, check_image, combine_heads
from vitresnas.space.architecture import Architecture


class TimmViTRes(ViTRes):
    """ViTRes with the methods that timm's tools expect of a classifier and of a backbone.

    Without classes it returns the class token, or with global_pool="" all tokens, normalised.
    """

    pretrained_cfg: dict[str, Any]

    def __init__(
        self, architecture: Architecture, *, drop_path: float = 0.0, patch_head: bool = False
    ) -> None:
        super().__init__(architecture, drop_path=drop_path, patch_head=patch_head)
        self.global_pool = "token"
        self.distilled_training = False
        self.default_cfg = self.pretrained_cfg = timm_config(architecture)
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
        """0 where the classifier was taken off."""
        return 0 if isinstance(self.head, nn.Identity) else self.architecture.classes

    @property
    def num_features(self) -> int:
        return self.architecture.stages[-1].embed

    @property
    def head_hidden_size(self) -> int:
        return self.num_features

    @property
    def num_prefix_tokens(self) -> int:
        return self.architecture.prefix_tokens

    @property
    def _model_args(self) -> dict[str, Any]:
        """What timm writes beside weights to build the network again: the network as it is."""
        patch_head = self.patch_head is not None
        return {"architecture": self.architecture.to_json(), "patch_head": patch_head}

    @_model_args.setter
    def _model_args(self, arguments: Any) -> None:
        """timm hands over create_model's arguments: paths of this machine, sizes since changed."""

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        """The classifier, or a pair with that of the distillation token."""
        if self.distillation_head is None:
            return self.head
        return self.head, self.distillation_head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Fresh classifiers for other classes; none for 0 classes."""
        check_classes(num_classes)
        pooling = self.global_pool if global_pool is None else global_pool
        check_pooling(pooling, num_classes)
        self.global_pool = pooling
        patch_head = self.patch_head is not None
        self.head = nn.Identity()  # type: ignore[assignment]
        self.distillation_head = self.patch_head = None
        if num_classes:
            self.architecture = replace(self.architecture, classes=num_classes)
            self.head = self._fresh_classifier()
            self.distillation_head = (
                self._fresh_classifier() if self.num_prefix_tokens == 2 else None
            )
            self.patch_head = self._fresh_classifier() if patch_head else None

    def _fresh_classifier(self) -> nn.Linear:
        like = self.embedding.prefix_tokens
        width, classes = self.num_features, self.architecture.classes
        new = nn.Linear(width, classes, device=like.device, dtype=like.dtype)
        nn.init.trunc_normal_(new.weight, std=INITIAL_STD)
        nn.init.zeros_(new.bias)
        return new

    @torch.no_grad()
    def reset_channels(self, channels: int) -> None:
        """Read images of so many channels: weights are summed or repeated, as timm does it."""
        old = self.architecture.channels
        self.architecture = replace(self.architecture, channels=channels)
        convolution = self.get_submodule(first_convolution(self.architecture))
        assert isinstance(convolution, nn.Conv2d)
        weight = adapt_input_conv(channels, convolution.weight.detach(), base_chans=old)
        convolution.weight = nn.Parameter(weight, requires_grad=convolution.weight.requires_grad)
        convolution.in_channels = channels
        self._redescribe()

    def at_resolution(self, image_size: int) -> TimmViTRes:
        new = super().at_resolution(image_size)
        assert isinstance(new, TimmViTRes)  # a copy of this network
        new._redescribe()
        return new

    def _redescribe(self) -> None:
        size = timm_config(self.architecture)["input_size"]
        self.default_cfg = self.pretrained_cfg = {**self.pretrained_cfg, "input_size": size}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: activations inside blocks are computed again going backward."""
        for stage in self.stages:
            stage.checkpointing = enable

    def set_distilled_training(self, enable: bool = True) -> None:
        """With a distillation token: return both logits in training, not their mean."""
        self.distilled_training = enable

    def forward(self, images_BCHW: Tensor) -> Any:
        """Logits (B, K), or what `forward_head` says."""
        return self.forward_head(self.forward_features(images_BCHW))

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """All tokens after the final LayerNorm, (B, N, C), the prefix tokens first."""
        return self.features(images_BCHW).tokens

    def forward_head(self, tokens_BNC: Tensor, pre_logits: bool = False) -> Any:
        """What `forward_features` returned to logits (B, K), or to the class token (B, C)."""
        if self.global_pool == "":
            return tokens_BNC
        if pre_logits:
            return tokens_BNC[:, 0]
        pair = self.training and self.distilled_training
        return combine_heads(self.heads(tokens_BNC, patches=False), pair)

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
        return self.norm(x_BNC), maps

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
    """Raise InputError for less than none."""
    if num_classes < 0:
        raise InputError(f"num_classes is {num_classes}: use 0 for features, or the classes")


def check_pooling(global_pool: str, num_classes: int) -> None:
    """Raise InputError for a pooling that this network does not have."""
    if global_pool != "token" and (global_pool or num_classes):
        raise InputError(
            f"global_pool is {global_pool!r}: this network classifies its class token, so use "
            "'token', or '' for all tokens with num_classes=0"
        )
