"""Existing models timed beside a space's networks: what they are and what they took. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from vitresnas.errors import InputError
from vitresnas.files import Fields, JsonObject
from vitresnas.latency.statistics import Measurement
from vitresnas.latency.timing import Quantiles, take_samples

_ROUNDING = 1e-9


@dataclass(frozen=True)
class ExistingModel:
    """A model of timm's on square images of a size in pixels, with its cost per image.

    `macs` counts products of matrices and convolutions, as `space.operations.macs` does.
    """

    name: str
    image_size: int
    classes: int
    macs: int
    parameters: int

    @property
    def label(self) -> str:
        """`deit_small_patch16_224@96`: as a user may ask for it."""
        return f"{self.name}@{self.image_size}"

    def __str__(self) -> str:
        return f"{self.name} ({self.image_size} pixels, {self.classes:,} classes)"

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def take(cls, fields: Fields) -> ExistingModel:
        """Read a model out of a larger object; the caller calls `fields.done()`."""
        return cls(
            fields.text("name"),
            fields.integer("image_size"),
            fields.integer("classes"),
            fields.integer("macs", minimum=0),
            fields.integer("parameters", minimum=0),
        )


@dataclass(frozen=True)
class Compared:
    """An existing model under a table's condition: one sample per round, milliseconds per batch.

    Speed is the median with its 95 % interval, as in a search's proof; `milliseconds` the tenth
    percentile, as for the networks of a table.
    """

    model: ExistingModel
    batch_size: int
    samples: tuple[float, ...]

    @cached_property
    def milliseconds(self) -> float:
        return Quantiles.of(self.samples).p10

    @property
    def images_per_second(self) -> float:
        return Measurement(self.samples).images_per_second(self.batch_size)

    @cached_property
    def interval_95(self) -> tuple[float, float]:
        """Of `images_per_second`."""
        return Measurement(self.samples).images_per_second_interval_95(self.batch_size)

    def __str__(self) -> str:
        low, high = self.interval_95
        return f"{self.model}: {self.images_per_second:,.0f} images/s ({low:,.0f} to {high:,.0f})"

    def to_json(self) -> JsonObject:
        return {
            **self.model.to_json(),
            "batch_size": self.batch_size,
            "images_per_second": self.images_per_second,
            "images_per_second_interval_95": list(self.interval_95),
            "samples_milliseconds": list(self.samples),
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Compared:
        fields = Fields(value, where)
        found = cls(
            ExistingModel.take(fields),
            fields.integer("batch_size"),
            take_samples(fields, "samples_milliseconds"),
        )
        speed = fields.number("images_per_second")
        if not math.isclose(speed, found.images_per_second, rel_tol=_ROUNDING):
            ours = f"{found.images_per_second}, as its samples say"
            raise fields.wrong("images_per_second", speed, ours)
        interval = fields.take("images_per_second_interval_95")
        if not _near(interval, found.interval_95):
            ours = f"{list(found.interval_95)}, as its samples say"
            raise fields.wrong("images_per_second_interval_95", interval, ours)
        fields.done()
        return found


def names_asked(texts: Sequence[str]) -> tuple[str, ...]:
    """The names of a repeated option whose values may be lists: `a,b` and `c` are a, b, c."""
    names = [name.strip() for text in texts for name in text.split(",")]
    if "" in names:
        raise InputError(
            f"compare is {','.join(texts)!r}: name timm models, as in "
            "deit_small_patch16_224,resnet18"
        )
    return tuple(dict.fromkeys(names))


def misfit(models: Sequence[ExistingModel], image_size: int, classes: int) -> str:
    """A sentence on the models that do another job than a space's networks; empty where none do."""
    others = [
        model for model in models if (model.image_size, model.classes) != (image_size, classes)
    ]
    if not others:
        return ""
    return (
        f"timed as they are, beside networks for {image_size} pixels and {classes:,} classes: "
        f"{', '.join(map(str, others))}; NAME@{image_size} asks for that image size"
    )


def _near(value: object, wanted: tuple[float, float]) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(item, (int, float)) for item in value)
        and all(math.isclose(*pair, rel_tol=_ROUNDING) for pair in zip(value, wanted, strict=True))
    )
