"""Networks of timm at sizes of one's own, without their published weights: rivals of ours."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitresnas.errors import InputError
from vitresnas.files import (
    Fields,
    JsonObject,
    digest,
    from_text,
    read_json,
    to_text,
    write_json,
)

KIND = "timm_network"
CHANNELS = 3
_NEAREST = 3


@dataclass(frozen=True)
class Cost:
    """MACs of one image: products of matrices and convolutions, as `space.operations` counts."""

    macs: int
    parameters: int
    classes: int


@dataclass(frozen=True)
class TimmNetwork:
    """A network of timm by name, for square images of a size in pixels.

    options: what its constructor takes besides, as JSON values: {"embed_dim": 96, "depth": 6}.
    """

    name: str
    image_size: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return digest(self.to_json())[:12]

    def create(self, classes: int, drop_path: float = 0.0) -> nn.Module:
        """With random weights: images (B, 3, side, side) to logits (B, classes).

        drop_path: stochastic depth of the last block. Raises InputError where timm cannot.
        """
        options = {**self.options, "num_classes": classes}
        if drop_path:
            options["drop_path_rate"] = drop_path
        refuse_unknown(self.name)
        with self._one_sentence():
            return create_timm(self.name, self.image_size, **options)

    def cost(self, classes: int) -> Cost:
        """Counted once in a process. Raises InputError where it cannot run."""
        return _cost(to_text(KIND, self.to_json()), classes)

    def _count(self, classes: int) -> Cost:
        with quiet(), torch.device("meta"):
            module = self.create(classes)
        with self._one_sentence():
            return cost_of(module, self.image_size)

    @contextmanager
    def _one_sentence(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a constructor of timm's does with such numbers
            reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
            raise InputError(
                f"timm's {self.name} cannot read images of {self.image_size} pixels with the "
                f"options {dict(self.options)} ({reason}): choose other sizes, or another network"
            ) from error

    def to_json(self) -> JsonObject:
        return {
            "name": self.name,
            "image_size": self.image_size,
            "options": dict(self.options),
        }

    def save(self, path: str | Path) -> None:
        write_json(path, KIND, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> TimmNetwork:
        """Raises InputError, FileFormatError."""
        return cls.from_json(read_json(path, KIND), str(path))

    @classmethod
    def from_json(cls, value: object, where: str) -> TimmNetwork:
        fields = Fields(value, where)
        options = fields.take("options")
        if not isinstance(options, dict):
            raise fields.wrong("options", options, "an object with named fields")
        found = cls(fields.text("name"), fields.integer("image_size"), options)
        fields.done()
        return found


@lru_cache
def _cost(network: str, classes: int) -> Cost:
    """Of a network as its file has it: options cannot be a key."""
    return TimmNetwork.from_json(from_text(network, KIND), KIND)._count(classes)


def load_timm_network(text: str) -> TimmNetwork:
    """`NAME@SIZE`, or a file that `TimmNetwork.save` wrote. Raises InputError."""
    if text.endswith(".json"):
        return TimmNetwork.load(text)
    name, _, size = text.partition("@")
    if not (size.isdecimal() and int(size) > 0):
        raise InputError(
            f"timm:{text} names no image size: write it as in timm:{name or 'resnet18'}@32, or "
            "give a .json file that describes the network"
        )
    refuse_unknown(name)
    return TimmNetwork(name, int(size))


def refuse_unknown(name: str) -> None:
    """Raise InputError for a name that timm does not know, naming the nearest."""
    import timm

    if timm.is_model(name):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=_NEAREST, cutoff=0.5)
    raise InputError(
        f"timm {timm.__version__} has no model {name!r}: "
        + (f"did you mean {' or '.join(near)}? " if near else "")
        + "timm.list_models() lists them all"
    )


def create_timm(name: str, image_size: int | None, **options: Any) -> nn.Module:
    """A model for a size; convolutional ones, which have no such option, read any."""
    import timm

    if image_size is None:
        return timm.create_model(name, **options)
    try:
        return timm.create_model(name, img_size=image_size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    return timm.create_model(name, **options)


def cost_of(module: nn.Module, image_size: int) -> Cost:
    """Counted on torch's meta device, where `module` is and neither weights nor images exist."""
    module.eval().requires_grad_(False)  # the counter follows gradients through tuples, and trips
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = module(torch.empty(1, CHANNELS, image_size, image_size))
    return Cost(
        macs=counter.get_total_flops() // 2,  # a product and a sum are one multiply-accumulate
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        classes=logits.shape[-1],
    )


@contextmanager
def quiet() -> Iterator[None]:
    """timm warns of its own old names and of weights that the meta device cannot draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
