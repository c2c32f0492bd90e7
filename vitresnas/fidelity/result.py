"""FidelityResult: both orders of the networks, the noise in them, and the file that tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitresnas.fidelity.alone import Trained
from vitresnas.fidelity.exposure import Exposure, Influence
from vitresnas.fidelity.score import Scores
from vitresnas.files import JsonObject, write_json
from vitresnas.latency.statistics import kendall_tau, kendall_tau_interval_95
from vitresnas.space import Architecture, macs, parameters

KIND = "fidelity"
MEASURES = ("negative_log_likelihood", "calibrated", "accuracy")
_DRAWS, _SEED = 2000, 20210902


@dataclass(frozen=True)
class Network:
    """A network's scores with inherited weights, and alone, one per seed."""

    architecture: Architecture
    inherited: Scores
    alone: tuple[Trained, ...]

    @property
    def first(self) -> Scores:
        """Of the seed that every network was trained from: what ranks it."""
        return self.alone[0].scores

    def to_json(self) -> JsonObject:
        return {
            "id": self.architecture.id,
            "architecture": self.architecture.to_json(),
            "macs": macs(self.architecture),
            "parameters": parameters(self.architecture),
            "inherited": self.inherited.to_json(),
            "alone": [
                {"seed": one.seed, "seconds": one.seconds, **one.scores.to_json()}
                for one in self.alone
            ],
        }


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau of both orders with its 95 % interval by bootstrap over the networks.

    noise: standard deviation of log(score) between seeds of one network; attainable_tau: what a
    judge who knew every network's true score would reach against orders that noisy, on average.
    Both are None without repeats, and for accuracies, which tie.
    """

    measure: str
    kendall_tau: float
    interval_95: tuple[float, float]
    noise: float | None
    attainable_tau: float | None

    def __str__(self) -> str:
        low, high = self.interval_95
        text = f"Kendall tau {self.kendall_tau:.2f} ({low:.2f} to {high:.2f})"
        if self.attainable_tau is None:
            return text
        return f"{text}, of {self.attainable_tau:.2f} attainable"

    def to_json(self) -> JsonObject:
        return {**asdict(self), "interval_95": list(self.interval_95)}


@dataclass(frozen=True)
class FidelityResult:
    """`exposure` and `influence` tell of the super-network alone, by many networks scored with
    inherited weights."""

    networks: tuple[Network, ...]
    exposure: tuple[Exposure, ...]
    influence: tuple[Influence, ...]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        return tuple(agreement(self.networks, measure) for measure in MEASURES)

    def to_json(self) -> JsonObject:
        return {
            "networks": [network.to_json() for network in self.networks],
            "agreement": {found.measure: found.to_json() for found in self.agreements},
            "exposure": [one.to_json() for one in self.exposure],
            "influence": [one.to_json() for one in self.influence],
            "settings": dict(self.settings),
            "environment": dict(self.environment),
            "seconds": dict(self.seconds),
        }

    def save(self, path: Path) -> None:
        write_json(path, KIND, self.to_json())


def agreement(networks: Sequence[Network], measure: str) -> Agreement:
    """How well the inherited scores of a measure order the networks as training them does."""
    inherited = [getattr(network.inherited, measure) for network in networks]
    alone = [getattr(network.first, measure) for network in networks]
    noise = attainable = None
    if measure != "accuracy":
        groups = [
            [getattr(one.scores, measure) for one in network.alone]
            for network in networks
            if len(network.alone) > 1
        ]
        if groups:
            noise = seed_noise(groups)
            attainable = attainable_tau(alone, noise)
    return Agreement(
        measure,
        kendall_tau(inherited, alone),
        kendall_tau_interval_95(inherited, alone),
        noise,
        attainable,
    )


def seed_noise(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation of log(score) between seeds, pooled over networks."""
    logs = [np.log(group) for group in groups]
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in logs)
    return float(np.sqrt(squares / sum(len(values) - 1 for values in logs)))


def attainable_tau(alone: Sequence[float], noise: float) -> float:
    """Mean Kendall tau of true scores against the same with the noise of one training each.

    What is observed varies by truth and noise together, so for the truth the observed scores (in
    logarithms) are drawn together until their variance is the observed one less the noise's.
    """
    observed = np.log(np.asarray(alone, dtype=float))
    spread = float(observed.std(ddof=1))
    left = max(spread**2 - noise**2, 0.0) ** 0.5 / spread if spread else 0.0
    truth = observed.mean() + left * (observed - observed.mean())
    draws = np.random.default_rng(_SEED).normal(0.0, noise, (_DRAWS, len(truth)))
    return float(np.mean([kendall_tau(truth, truth + draw) for draw in draws]))
