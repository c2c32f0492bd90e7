"""What timm's tools read of a network of ours: images as it wants them, and names of its ends."""

from __future__ import annotations

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from vitresnas.space.architecture import Architecture

ENTRY = "vitresnas"  # timm's name of all our networks, each built from its architecture

# Of any network; `timm_config` adds what depends on which.
TIMM_CONFIG: dict[str, Any] = {
    "architecture": ENTRY,
    "fixed_input_size": True,
    "pool_size": None,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "interpolation": "bicubic",
}


def timm_config(architecture: Architecture) -> dict[str, Any]:
    """The pretrained_cfg of a network."""
    two = architecture.prefix_tokens == 2
    return {
        **TIMM_CONFIG,
        "input_size": (architecture.channels, architecture.image_size, architecture.image_size),
        "num_classes": architecture.classes,
        "first_conv": first_convolution(architecture),
        "classifier": ("head", "distillation_head") if two else "head",
    }


def first_convolution(architecture: Architecture) -> str:
    """The module that reads the channels of images."""
    linear = architecture.embedding.kind == "linear"
    return "embedding.projection" if linear else "embedding.trunk.conv1.0"
