"""Timing: what one piece took, on the host and on the device, with its raw samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from dataclasses import fields as fields_of
from functools import cached_property

import numpy as np

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject

DIGITS = 6  # nanoseconds, as milliseconds


@dataclass(frozen=True)
class Quantiles:
    """Order statistics of one list of samples, in milliseconds."""

    minimum: float
    p10: float
    p25: float
    median: float
    p75: float
    p90: float
    maximum: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Quantiles:
        values = np.quantile(np.asarray(samples), (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0))
        return cls(*(round(float(value), DIGITS) for value in values))

    @classmethod
    def from_json(cls, value: object, where: str) -> Quantiles:
        reader = Fields(value, where)
        found = cls(**{field.name: positive(reader, field.name) for field in fields_of(cls)})
        reader.done()
        if list(astuple(found)) != sorted(astuple(found)):
            raise FileFormatError(f"{where} does not rise from minimum to maximum: measure again")
        return found

    def near(self, other: Quantiles) -> bool:
        """Equal but for the last digit, which numpy may round otherwise elsewhere."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return all(math.isclose(ours, theirs, abs_tol=1.5 * 10**-DIGITS) for ours, theirs in pairs)


QUANTILE_NAMES = tuple(field.name for field in fields_of(Quantiles))


@dataclass(frozen=True)
class Timing:
    """Samples of one piece, one per round, in milliseconds per batch.

    `host_samples`: from the call until it returned. `device_samples`: what the device worked for,
    launch gaps excluded; None where the device is the host (a CPU).
    """

    host_samples: tuple[float, ...]
    device_samples: tuple[float, ...] | None = None

    @cached_property
    def host(self) -> Quantiles:
        return Quantiles.of(self.host_samples)

    @cached_property
    def device(self) -> Quantiles:
        return self.host if self.device_samples is None else Quantiles.of(self.device_samples)

    def to_json(self) -> JsonObject:
        return {
            "host_milliseconds": quantiles_to_json(self.host),
            "device_milliseconds": quantiles_to_json(self.device),
            "samples": {
                "host_milliseconds": list(self.host_samples),
                "device_milliseconds": self.device_samples and list(self.device_samples),
            },
        }

    @classmethod
    def take(cls, fields: Fields, where: str) -> Timing:
        """Read a timing out of a larger object; the quantiles must be those of the samples."""
        samples = Fields(fields.take("samples"), f"{where}, samples")
        device = samples.take("device_milliseconds")
        timing = cls(
            take_samples(samples, "host_milliseconds"),
            None if device is None else take_samples(samples, "device_milliseconds"),
        )
        samples.done()
        for name, ours in (("host", timing.host), ("device", timing.device)):
            place = f"{where}, {name}_milliseconds"
            if not Quantiles.from_json(fields.take(f"{name}_milliseconds"), place).near(ours):
                raise FileFormatError(
                    f"{place} are not the quantiles of its samples: measure the table again"
                )
        return timing


def quantiles_to_json(quantiles: Quantiles) -> JsonObject:
    return dict(zip(QUANTILE_NAMES, astuple(quantiles), strict=True))


def positive(fields: Fields, name: str) -> float:
    """A time: a finite number above zero."""
    value = fields.number(name)
    if not 0.0 < value < math.inf:
        raise fields.wrong(name, value, "a time above zero")
    return value


def take_samples(fields: Fields, name: str) -> tuple[float, ...]:
    """A list of times, at least one."""
    value = fields.take(name)
    if (
        not isinstance(value, list)
        or not value
        or not all(
            isinstance(item, (int, float)) and not isinstance(item, bool) and 0.0 < item < math.inf
            for item in value
        )
    ):
        raise fields.wrong(name, value, "a list of times above zero")
    return tuple(float(item) for item in value)


def milliseconds(seconds: float) -> float:
    """Seconds of a clock as they are stored."""
    return max(round(1000.0 * seconds, DIGITS), 10**-DIGITS)
