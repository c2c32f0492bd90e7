"""Models of timm, found by name and built to be timed. timm is imported when one is asked for.

A model is timed as published: on images of its own size, with its own classes. Nothing else is what
its name promises, and both stand beside every number. `NAME@SIZE` builds it for another size, such
as that of a space's own images, where the model has that option.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vitresnas.models  # noqa: F401  timm learns of this project's networks here
from vitresnas.errors import InputError
from vitresnas.latency.compared import ExistingModel
from vitresnas.latency.measure import Guest

_CHANNELS = 3
_NEAREST = 3


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
    with _quiet():
        module = _create(model.name, side).eval().to(device)
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(batch_size, _CHANNELS, side, side, generator=generator)
    return module, images_BCHW.to(device)


def _find(text: str) -> ExistingModel:
    name, at, size = text.partition("@")
    _refuse_unknown(name)
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


def _refuse_unknown(name: str) -> None:
    import timm

    if timm.is_model(name):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=_NEAREST, cutoff=0.5)
    raise InputError(
        f"timm {timm.__version__} has no model {name!r}: "
        + (f"did you mean {' or '.join(near)}? " if near else "")
        + "timm.list_models() lists them all"
    )


def _described(name: str, image_size: int | None) -> ExistingModel:
    """Counted on torch's meta device, where neither weights nor images exist."""
    with _quiet(), torch.device("meta"), torch.no_grad():
        module: Any = _create(name, image_size).eval()
        side = image_size or module.pretrained_cfg["input_size"][-1]
        with FlopCounterMode(display=False) as counter:
            logits = module(torch.empty(1, _CHANNELS, side, side))
    return ExistingModel(
        name=name,
        image_size=side,
        classes=logits.shape[-1],
        macs=counter.get_total_flops() // 2,  # a product and a sum are one multiply-accumulate
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


def _create(name: str, image_size: int | None) -> nn.Module:
    """A model for a size; convolutional ones, which have no such option, read any."""
    import timm

    if image_size is None:
        return timm.create_model(name)
    try:
        return timm.create_model(name, img_size=image_size)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    return timm.create_model(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """timm warns of its own old names and of weights that the meta device cannot draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
