"""The published networks in timm's registry: timm.create_model("vitresnas_tiny", ...).

Importing `vitresnas.models` registers them. No weights are published with this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model
from torch import nn

from vitresnas.errors import InputError
from vitresnas.models.features import Features
from vitresnas.models.vit_res import INITIAL_STD, ViTRes, combine_heads
from vitresnas.space.presets import NETWORKS


def vitresnas_tiny(pretrained: bool = False, **options: Any) -> TimmViTRes:
    """ViT-ResNAS-Tiny: 40.8 M parameters, 1.78 G MACs at 224 pixels."""
    return _create("tiny", pretrained, **options)


def vitresnas_small(pretrained: bool = False, **options: Any) -> TimmViTRes:
    """ViT-ResNAS-Small: 63.7 M parameters, 2.85 G MACs at 224 pixels."""
    return _create("small", pretrained, **options)


def vitresnas_medium(pretrained: bool = False, **options: Any) -> TimmViTRes:
    """ViT-ResNAS-Medium: 96.4 M parameters, 4.51 G MACs at 224 pixels."""
    return _create("medium", pretrained, **options)


class TimmViTRes(ViTRes):
    """ViTRes with the few methods that timm's tools expect of a classifier."""

    default_cfg: dict[str, Any]
    pretrained_cfg: dict[str, Any]

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
        _check_classes(num_classes)
        _check_pooling(global_pool)
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


def _create(
    name: str,
    pretrained: bool,
    *,
    num_classes: int = 1000,
    img_size: int | Sequence[int] = 224,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    patch_head: bool = False,
    distilled: bool = False,
    drop_rate: float = 0.0,
    global_pool: str | None = None,
    features_only: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None,
    cache_dir: Any = None,
    **unknown: Any,
) -> TimmViTRes:
    if pretrained:
        raise InputError(
            f"no weights are published for vitresnas_{name}: train it with `vitresnas train`, or "
            "read the authors' file with `vitresnas import-official`"
        )
    if unknown:
        raise InputError(
            f"vitresnas_{name} has no option {next(iter(unknown))!r}: use num_classes, img_size, "
            "in_chans, drop_path_rate, patch_head, distilled"
        )
    if features_only:
        raise InputError(
            f"vitresnas_{name} has no features_only form: call "
            "model.forward_features(images).stages, the tokens of every stage"
        )
    if drop_rate:
        raise InputError(
            f"drop_rate is {drop_rate}: this network has no dropout, use drop_path_rate"
        )
    _check_classes(num_classes)
    _check_pooling(global_pool)
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(set(sides)) != 1:
        raise InputError(f"img_size is {img_size}: this network reads square images alone")
    architecture = replace(
        NETWORKS[name],
        image_size=sides[0],
        classes=num_classes,
        channels=in_chans,
        prefix_tokens=2 if distilled else 1,
    )
    model = TimmViTRes(architecture, drop_path=drop_path_rate, patch_head=patch_head)
    model.pretrained_cfg = {
        "architecture": f"vitresnas_{name}",
        **_CONFIG,
        "input_size": (in_chans, sides[0], sides[0]),
        "num_classes": num_classes,
    }
    model.default_cfg = model.pretrained_cfg
    return model


def _check_classes(num_classes: int) -> None:
    if num_classes < 1:
        raise InputError(
            f"num_classes is {num_classes}: use at least 1; for features without a classifier "
            "call model.forward_features(images).pooled"
        )


def _check_pooling(global_pool: str | None) -> None:
    if global_pool not in (None, "token"):
        raise InputError(
            f"global_pool is {global_pool!r}: this network classifies its class token ('token')"
        )


def _fresh_like(old: nn.Linear, classes: int) -> nn.Linear:
    new = nn.Linear(old.in_features, classes, device=old.weight.device, dtype=old.weight.dtype)
    nn.init.trunc_normal_(new.weight, std=INITIAL_STD)
    nn.init.zeros_(new.bias)
    return new


_CONFIG = {
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

# timm looks for this name in the module of a registered function.
default_cfgs = generate_default_cfgs({f"vitresnas_{name}.untrained": _CONFIG for name in NETWORKS})

for _network in (vitresnas_tiny, vitresnas_small, vitresnas_medium):
    register_model(_network)
