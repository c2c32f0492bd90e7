"""Models of timm, found by name and built to be timed. timm is imported when one is asked for.

A model is timed as published: on images of its own size, with its own classes. Nothing else is what
its name promises, and both stand beside every number. `NAME@SIZE` builds it for another size, such
as that of a space's own images, where the model has that option.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import vitresnas.models  # noqa: F401  timm learns of this project's networks here
from vitresnas.errors import InputError
from vitresnas.latency.compared import ExistingModel
from vitresnas.latency.measure import Guest
from vitresnas.models.timm_sized import CHANNELS, cost_of, create_timm, quiet, refuse_unknown


def find_models(names: Sequence[str]) -> tuple[ExistingModel, ...]:
    """What `NAME` and `NAME@SIZE` mean, each model once; no weights are made.

    Raises InputError for a name that timm does not know (naming the nearest), and for a size that
    the model cannot read.
    """
    return tuple(dict.fromkeys(_find(name) for name in names))


def guests(models: Sequence[ExistingModel], batch_size: int, device: str) -> dict[str, Guest]:
    """Models by label with random weights, in evaluation mode, each with images to be timed on."""
    return {model.label: _guest(model, batch_size, device) for model in models}


def _guest(model: ExistingModel, batch_size: int, device: str) -> Guest:
    side = model.image_size
    with quiet():
        module = create_timm(model.name, side).eval().to(device)
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(batch_size, CHANNELS, side, side, generator=generator)
    return module, images_BCHW.to(device)


def _find(text: str) -> ExistingModel:
    name, at, size = text.partition("@")
    refuse_unknown(name)
    if at and not (size.isdecimal() and int(size) > 0):
        raise InputError(f"compare is {text!r}: write the image size as in {name}@224")
    try:
        return _described(name, int(size) if at else None)
    except Exception as error:  # whatever a model of timm's does with images of another size
        reason = str(error).strip().split("\n", 1)[0]
        what = f"images of {size} pixels" if at else "square images of three channels"
        raise InputError(
            f"timm's {name} cannot read {what} ({reason}): "
            f"ask for another size with {name}@SIZE, or for another model"
        ) from error


def _described(name: str, image_size: int | None) -> ExistingModel:
    """Counted on torch's meta device, where neither weights nor images exist."""
    with quiet(), torch.device("meta"):
        module: Any = create_timm(name, image_size)
        side = image_size or module.pretrained_cfg["input_size"][-1]
        cost = cost_of(module, side)
    return ExistingModel(name, side, cost.classes, cost.macs, cost.parameters)
