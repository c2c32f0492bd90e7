"""Energy: joules per image of a network, from its pieces, where a power meter was there to fit on.

A piece draws power for as long as it runs, so energy is a weighted sum of the same device times as
time is, plus a constant: the models of calibration.py that are linear. Fitted on whole networks run
back to back under NVML's energy counter; the error is leave-one-out. No torch in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject
from vitresnas.latency.calibration import MODELS, predict_left_out, solve
from vitresnas.latency.statistics import percentage_errors

MODEL = MODELS["affine"]


@dataclass(frozen=True)
class Energy:
    """joules per image = constant + per_millisecond x (device milliseconds of the pieces).

    `how` names the meter; `pairs`: (id of a network, joules per image predicted without it,
    measured); `idle_watts`: what the device drew beforehand, which is in the numbers.
    """

    how: str
    constant: float
    per_millisecond: float
    idle_watts: float
    pairs: tuple[tuple[str, float, float], ...]

    def joules(self, milliseconds: float) -> float:
        return self.constant + self.per_millisecond * milliseconds

    @property
    def mean_percent(self) -> float:
        _, predicted, measured = zip(*self.pairs, strict=True)
        return float(np.mean(percentage_errors(predicted, measured)))

    def __str__(self) -> str:
        measured = [pair[2] for pair in self.pairs]
        return (
            f"energy {1e3 * min(measured):.3g} to {1e3 * max(measured):.3g} mJ per image by "
            f"{self.how} ({self.idle_watts:.0f} W idle): leave-one-out error "
            f"{self.mean_percent:.1f} % mean of {len(self.pairs)} networks"
        )

    def to_json(self) -> JsonObject:
        return {
            "how": self.how,
            "constant_joules": self.constant,
            "joules_per_millisecond": self.per_millisecond,
            "idle_watts": self.idle_watts,
            "networks": [
                {"id": id_, "predicted_joules": predicted, "measured_joules": measured}
                for id_, predicted, measured in self.pairs
            ],
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Energy:
        reader = Fields(value, where)
        energy = cls(
            how=reader.text("how"),
            constant=reader.number("constant_joules", minimum=0.0),
            per_millisecond=reader.number("joules_per_millisecond", minimum=0.0),
            idle_watts=reader.number("idle_watts", minimum=0.0),
            pairs=reader.items("networks", _pair),
        )
        reader.done()
        if not energy.pairs or energy.constant + energy.per_millisecond <= 0.0:
            raise FileFormatError(f"{where} makes every network free: measure the table again")
        return energy


def fit_energy(
    how: str,
    ids: Sequence[str],
    features: Sequence[dict[str, float]],
    joules_per_image: Sequence[float],
    idle_watts: float,
) -> Energy:
    """`features` as calibration reads them off the pieces' timings."""
    predicted = predict_left_out(MODEL, features, joules_per_image)
    weights = dict(zip(MODEL, solve(MODEL, features, joules_per_image), strict=True))
    return Energy(
        how,
        weights["constant"],
        weights["device"],
        round(idle_watts, 3),
        tuple(zip(ids, predicted, joules_per_image, strict=True)),
    )


def _pair(value: object, where: str) -> tuple[str, float, float]:
    reader = Fields(value, where)
    pair = (
        reader.text("id"),
        reader.number("predicted_joules", minimum=0.0),
        reader.number("measured_joules", minimum=0.0),
    )
    reader.done()
    return pair
