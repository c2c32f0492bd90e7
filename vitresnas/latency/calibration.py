"""From the times of the pieces to the time of the network: a few coefficients, fitted.

A prediction is a sum of coefficients times features, and a feature is read off the pieces'
timings:
    constant            1
    device, host        the pieces' times summed, on the device or on the host
    max                 the larger of the two sums: eager execution overlaps them
    attention, mlp, ... device times summed over one kind of piece
Models are sets of features. They are compared by leave-one-out error on the calibration networks
alone, so the validation networks stay unseen; the simplest within a quarter of the best is kept.
Learned residuals on top of them are compared in latency/comparison.py; a search could not bound
what they would promise, and they would have to win clearly to be worth that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject
from vitresnas.latency.statistics import percentage_errors
from vitresnas.latency.timing import QUANTILE_NAMES, Timing
from vitresnas.space.operations import OPERATION_KINDS, Operation

STATISTIC = "p10"
TOLERATED_LOSS = 1.25
_LEAST_SHARE = 0.2  # of the common scale, for attention and MLPs
_SHRINKAGE = 0.001  # of the weight of the networks

# From the simplest up.
MODELS: dict[str, tuple[str, ...]] = {
    "scale": ("device",),
    "affine": ("constant", "device"),
    "max": ("constant", "max"),
    "host-and-device": ("constant", "host", "device"),
    "kinds": ("constant", *OPERATION_KINDS),
}
_FEATURES = ("constant", "device", "host", "max", *OPERATION_KINDS)

Priced = Iterable[tuple[Operation, Timing]]


@dataclass(frozen=True)
class Calibration:
    """A fitted model: its coefficients, and how it compared with the others.

    `statistic`: the quantile of each piece's samples that counts as its time.
    `comparison`: leave-one-out error of each model in percent; `sum` is the plain, unfitted sum.
    """

    model: str
    statistic: str
    coefficients: tuple[tuple[str, float], ...]
    comparison: tuple[tuple[str, float], ...] = ()

    def milliseconds(self, pieces: Priced) -> float:
        """Predicted time of a network per batch."""
        found = features(pieces, self.statistic)
        return sum(weight * found[name] for name, weight in self.coefficients)

    def to_json(self) -> JsonObject:
        return {
            "model": self.model,
            "statistic": self.statistic,
            "coefficients": dict(self.coefficients),
            "leave_one_out_percent": dict(self.comparison),
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Calibration:
        reader = Fields(value, where)
        calibration = cls(
            model=reader.text("model", choices=tuple(MODELS)),
            statistic=reader.text("statistic", choices=QUANTILE_NAMES),
            coefficients=_numbers(reader.take("coefficients"), f"{where}, coefficients"),
            comparison=_numbers(
                reader.take("leave_one_out_percent"), f"{where}, leave_one_out_percent"
            ),
        )
        reader.done()
        expected = sorted(MODELS[calibration.model])
        if [name for name, _ in calibration.coefficients] != expected:
            raise FileFormatError(
                f"{where}, coefficients: model {calibration.model} needs {', '.join(expected)}"
            )
        if not any(weight for _, weight in calibration.coefficients):
            raise FileFormatError(
                f"{where}: every coefficient is 0, so every network would be free"
            )
        return calibration


def features(pieces: Priced, statistic: str = STATISTIC) -> dict[str, float]:
    """The named sums that models weigh."""
    found = dict.fromkeys(_FEATURES, 0.0)
    for operation, timing in pieces:
        device = getattr(timing.device, statistic)
        found["host"] += getattr(timing.host, statistic)
        found["device"] += device
        found[operation.kind] += device
    return {**found, "constant": 1.0, "max": max(found["host"], found["device"])}


def fit(networks: Sequence[dict[str, float]], measured: Sequence[float]) -> Calibration:
    """Choose and fit a model from the features of a few networks and their measured times.

    Raises ValueError for fewer than three networks.
    """
    if len(networks) < 3:
        raise ValueError(f"a calibration needs at least 3 networks, got {len(networks)}")
    host_is_device = all(network["host"] == network["device"] for network in networks)
    candidates = {
        name: model
        for name, model in MODELS.items()
        # On a CPU these would only repeat the affine sum.
        if not (host_is_device and {"host", "max"} & set(model))
    }
    loss = {name: _leave_one_out(model, networks, measured) for name, model in candidates.items()}
    solved = {name: solve(model, networks, measured) for name, model in candidates.items()}
    # Noise can still pull a kind to nothing: a search would take such pieces for free.
    common = solved["scale"][0]
    sound = {n: loss[n] for n in candidates if not _frees(candidates[n], solved[n], common)}
    bound = TOLERATED_LOSS * min(sound.values())
    model = next(name for name in sound if loss[name] <= bound)
    weights = solved[model]
    plain = percentage_errors([network["device"] for network in networks], measured)
    comparison = {**loss, "sum": float(np.mean(plain))}
    return Calibration(
        model,
        STATISTIC,
        tuple(sorted(zip(candidates[model], weights, strict=True))),
        tuple(sorted((name, round(value, 4)) for name, value in comparison.items())),
    )


def _frees(model: Sequence[str], weights: Sequence[float], common: float) -> bool:
    """Whether a model prices the pieces that networks are made of at next to nothing."""
    found = dict(zip(model, weights, strict=True))
    return any(found.get(kind, common) < _LEAST_SHARE * common for kind in ("attention", "mlp"))


def solve(
    model: Sequence[str], networks: Sequence[dict[str, float]], measured: Sequence[float]
) -> list[float]:
    """Non-negative least squares of the relative error.

    Kinds grow together from network to network, so that a few networks could trade one scale for
    another, down to zero: a search would take such pieces for free. Each scale is therefore drawn
    a little towards the common one.
    """
    from scipy.optimize import nnls  # reading a table must not need it

    rows = np.array(
        [
            [network[name] / time for name in model]
            for network, time in zip(networks, measured, strict=True)
        ]
    )
    wanted = np.ones(len(rows))
    if set(OPERATION_KINDS) <= set(model):
        common = solve(MODELS["scale"], networks, measured)[0]
        shares = np.sqrt(_SHRINKAGE * len(rows)) * rows.mean(axis=0)
        pulls = [index for index, name in enumerate(model) if name in OPERATION_KINDS]
        rows = np.vstack((rows, np.diag(shares)[pulls]))
        wanted = np.concatenate((wanted, common * shares[pulls]))
    weights, _ = nnls(rows, wanted)
    return [float(weight) for weight in weights]


def predict_left_out(
    model: Sequence[str], networks: Sequence[dict[str, float]], measured: Sequence[float]
) -> list[float]:
    """Each network's time when the model is fitted on all the others."""
    guesses = []
    for index, network in enumerate(networks):
        rest = [*range(index), *range(index + 1, len(networks))]
        weights = solve(model, [networks[i] for i in rest], [measured[i] for i in rest])
        pairs = zip(weights, model, strict=True)
        guesses.append(sum(weight * network[name] for weight, name in pairs))
    return guesses


def _leave_one_out(
    model: Sequence[str], networks: Sequence[dict[str, float]], measured: Sequence[float]
) -> float:
    """Mean absolute error in percent on each network when fitted on the others."""
    return float(np.mean(percentage_errors(predict_left_out(model, networks, measured), measured)))


def _numbers(value: object, where: str) -> tuple[tuple[str, float], ...]:
    reader = Fields(value, where)
    names = sorted(value) if isinstance(value, dict) else []
    return tuple((name, reader.number(name, minimum=0.0)) for name in names)
