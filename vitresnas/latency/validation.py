"""Validation: predicted against measured, on whole networks the calibration never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject
from vitresnas.latency.statistics import kendall_tau, percentage_errors
from vitresnas.latency.timing import positive, take_samples
from vitresnas.space.architecture import Architecture
from vitresnas.space.operations import macs

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Pair:
    """One network: what the table says, and what it took (milliseconds per batch)."""

    architecture: Architecture
    predicted: float
    measured: float
    samples: tuple[float, ...]

    def to_json(self) -> JsonObject:
        return {
            "architecture": self.architecture.to_json(),
            "id": self.architecture.id,
            "macs": macs(self.architecture),
            "predicted_milliseconds": self.predicted,
            "measured_milliseconds": self.measured,
            "samples_milliseconds": list(self.samples),
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Pair:
        reader = Fields(value, where)
        architecture = Architecture.from_json(reader.take("architecture"), f"{where}, architecture")
        pair = cls(
            architecture,
            positive(reader, "predicted_milliseconds"),
            positive(reader, "measured_milliseconds"),
            take_samples(reader, "samples_milliseconds"),
        )
        for name, ours in (("id", architecture.id), ("macs", macs(architecture))):
            if (found := reader.take(name)) != ours:
                raise reader.wrong(name, found, f"{ours!r}, as the architecture says")
        reader.done()
        return pair


@dataclass(frozen=True)
class Validation:
    """Pairs and what follows from them."""

    pairs: tuple[Pair, ...]

    @cached_property
    def errors_percent(self) -> list[float]:
        return percentage_errors(*self._columns)

    @property
    def mean_absolute_percentage_error(self) -> float:
        return float(np.mean(self.errors_percent))

    @property
    def worst_percent(self) -> float:
        return max(self.errors_percent)

    @cached_property
    def kendall_tau(self) -> float:
        return kendall_tau(*self._columns)

    @property
    def _columns(self) -> tuple[Sequence[float], Sequence[float]]:
        return [pair.predicted for pair in self.pairs], [pair.measured for pair in self.pairs]

    def to_json(self) -> JsonObject:
        return {**self._summary(), "pairs": [pair.to_json() for pair in self.pairs]}

    def _summary(self) -> JsonObject:
        return {
            "networks": len(self.pairs),
            "mean_absolute_percentage_error": round(self.mean_absolute_percentage_error, 6),
            "worst_percent": round(self.worst_percent, 6),
            "kendall_tau": round(self.kendall_tau, 6),
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Validation:
        reader = Fields(value, where)
        validation = cls(reader.items("pairs", Pair.from_json))
        if not validation.pairs:
            raise FileFormatError(f"{where} has no pairs: measure the table again")
        for name, ours in validation._summary().items():
            found = reader.number(name)
            if not math.isclose(found, ours, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
                raise reader.wrong(name, found, f"{ours}, as its pairs say")
        reader.done()
        return validation
