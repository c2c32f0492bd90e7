"""Which correction turns the times of pieces into the time of a network best? No torch in here.

Every model of calibration.py, the plain sum and two learned residuals, each judged by leaving one
out of all whole networks that a table holds. The residuals learn the logarithm of measured over
affine time from what a sum cannot see: how many pieces there are and how the time is split.
    ridge      linear, its penalty chosen by leave-one-out inside the fitting networks
    boosted    sixty stumps, a tenth of a step each
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vitresnas.files import JsonObject
from vitresnas.latency.calibration import (
    MODELS,
    TOLERATED_LOSS,
    features,
    predict_left_out,
)
from vitresnas.latency.statistics import kendall_tau, percentage_errors, ridge
from vitresnas.latency.table import LatencyTable
from vitresnas.space.architecture import Architecture
from vitresnas.space.operations import OPERATION_KINDS, operations

_STUMPS, _STEP = 60, 0.1

Learn = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class Score:
    """One model on networks that it was not fitted on."""

    model: str
    mean_percent: float
    worst_percent: float
    kendall_tau: float

    def to_json(self) -> JsonObject:
        return {
            "model": self.model,
            "mean_percent": round(self.mean_percent, 4),
            "worst_percent": round(self.worst_percent, 4),
            "kendall_tau": round(self.kendall_tau, 4),
        }


@dataclass(frozen=True)
class Comparison:
    """All models on one table, in the order of their simplicity; `chosen` by calibration's rule."""

    scores: tuple[Score, ...]
    networks: int

    @property
    def chosen(self) -> Score:
        """The simplest whose error is within a quarter of the best."""
        best = min(score.mean_percent for score in self.scores)
        return next(s for s in self.scores if s.mean_percent <= TOLERATED_LOSS * best)

    def to_json(self) -> JsonObject:
        return {
            "networks": self.networks,
            "scores": [score.to_json() for score in self.scores],
            "chosen": self.chosen.model,
        }


def compare(table: LatencyTable) -> Comparison:
    """Leave-one-out on every whole network of the table."""
    pairs = table.whole_networks
    measured = [pair.measured for pair in pairs]
    found = [
        features(
            ((piece, table.timing(piece)) for piece in operations(pair.architecture)),
            table.calibration.statistic,
        )
        for pair in pairs
    ]
    guesses = {"sum": [network["device"] for network in found]}
    for name, model in MODELS.items():
        guesses[name] = predict_left_out(model, found, measured)
    rows = np.array([_shape(pair.architecture, f) for pair, f in zip(pairs, found, strict=True)])
    for name, learn in (("affine + ridge", ridge), ("affine + boosted", _boosted)):
        guesses[name] = _residual_left_out(found, rows, measured, learn)
    scores = tuple(_score(name, values, measured) for name, values in guesses.items())
    return Comparison(scores, len(pairs))


def _score(name: str, guesses: Sequence[float], measured: Sequence[float]) -> Score:
    errors = percentage_errors(guesses, measured)
    return Score(name, float(np.mean(errors)), max(errors), kendall_tau(guesses, measured))


def _shape(architecture: Architecture, found: dict[str, float]) -> list[float]:
    """What a sum cannot see of a network."""
    counts = Counter(operation.kind for operation in operations(architecture))
    shares = [found[kind] / found["device"] for kind in OPERATION_KINDS]
    widths = [np.log(stage.embed) for stage in architecture.stages]
    return [
        *(float(counts[kind]) for kind in ("attention", "mlp")),
        *shares,
        *widths,
        float(np.log(found["device"])),
        float(np.log(found["host"])),
    ]


def _residual_left_out(
    found: Sequence[dict[str, float]], rows: np.ndarray, measured: Sequence[float], learn: Learn
) -> list[float]:
    """Affine and residual are both fitted without the network that they predict."""
    guesses = []
    for index in range(len(found)):
        rest = [i for i in range(len(found)) if i != index]
        inner = [found[i] for i in rest]
        times = np.array([measured[i] for i in rest])
        # The residual that the affine model leaves on networks it has not seen, too.
        fitted = np.array(predict_left_out(MODELS["affine"], inner, list(times)))
        center, spread = rows[rest].mean(axis=0), rows[rest].std(axis=0)
        scaled = (rows - center) / np.where(spread > 0, spread, 1.0)
        predict = learn(scaled[rest], np.log(times / fitted))
        affine = predict_left_out(
            MODELS["affine"], [*inner, found[index]], [*times, measured[index]]
        )[-1]
        guesses.append(affine * float(np.exp(predict(scaled[index : index + 1])[0])))
    return guesses


def _boosted(rows: np.ndarray, wanted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    base, left = float(wanted.mean()), wanted - wanted.mean()
    stumps: list[tuple[int, float, float, float]] = []
    for _ in range(_STUMPS):
        column, cut, low, high = _best_stump(rows, left)
        stumps.append((column, cut, _STEP * low, _STEP * high))
        left = left - np.where(rows[:, column] <= cut, _STEP * low, _STEP * high)

    def predict(new: np.ndarray) -> np.ndarray:
        total = np.full(len(new), base)
        for column, cut, low, high in stumps:
            total += np.where(new[:, column] <= cut, low, high)
        return total

    return predict


def _best_stump(rows: np.ndarray, left: np.ndarray) -> tuple[int, float, float, float]:
    """The split of one column that explains most."""
    best, gain = (0, np.inf, float(left.mean()), 0.0), 0.0
    for column in range(rows.shape[1]):
        order = np.argsort(rows[:, column], kind="stable")
        values, sums = rows[order, column], np.cumsum(left[order])
        counts = np.arange(1, len(left))
        gains = sums[:-1] ** 2 / counts + (sums[-1] - sums[:-1]) ** 2 / (len(left) - counts)
        gains[values[1:] == values[:-1]] = 0.0  # equal values cannot be split
        at = int(np.argmax(gains))
        if gains[at] > gain:
            gain, count = float(gains[at]), at + 1
            low, high = sums[at] / count, (sums[-1] - sums[at]) / (len(left) - count)
            best = (column, float(values[at]), float(low), float(high))
    return best
