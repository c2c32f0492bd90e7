"""Which whole networks calibrate and validate a table. No torch in here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from vitresnas.errors import InputError
from vitresnas.files import Fields, JsonObject
from vitresnas.space.architecture import Architecture
from vitresnas.space.search_space import SearchSpace

CALIBRATION_NETWORKS = 12
VALIDATION_NETWORKS = 24
UNIFORM_NETWORKS = 12
NETWORKS_NEEDED = CALIBRATION_NETWORKS + VALIDATION_NETWORKS + UNIFORM_NETWORKS

_STEPS = 600  # mutations tried per network before the nearest so far is taken
_NEAR = 0.004  # of the logarithm of the time aimed at

Cost = Callable[[Architecture], float]


@dataclass(frozen=True)
class NetworkChoice:
    """Distinct networks in three roles; only `calibration` is fitted on."""

    calibration: tuple[Architecture, ...]
    validation: tuple[Architecture, ...]
    uniform: tuple[Architecture, ...]

    @property
    def all(self) -> tuple[Architecture, ...]:
        return self.calibration + self.validation + self.uniform

    def to_json(self) -> JsonObject:
        return {
            role: [architecture.to_json() for architecture in getattr(self, role)]
            for role in ("calibration", "validation", "uniform")
        }

    @classmethod
    def take(cls, fields: Fields) -> NetworkChoice:
        return cls(
            fields.items("calibration", Architecture.from_json),
            fields.items("validation", Architecture.from_json),
            fields.items("uniform", Architecture.from_json),
        )


def choose_networks(space: SearchSpace, cost: Cost, rng: Random) -> NetworkChoice:
    """Calibration and validation evenly spaced in log cost between the ends, uniform draws beside.

    The ends themselves calibrate, so that validation asks for nothing outside what was fitted.
    `cost` is any estimate of time; only its proportions count. Raises InputError for a space with
    too few networks to hold any out.
    """
    if space.size < 2 * NETWORKS_NEEDED:
        raise InputError(
            f"space {space.name} holds {space.size} networks and a latency table needs "
            f"{2 * NETWORKS_NEEDED} to calibrate and to validate on others: give it more choices"
        )
    low, high = sorted((cost(space.smallest), cost(space.largest)))
    taken: dict[Architecture, None] = {space.smallest: None, space.largest: None}

    def draw(target: float) -> Architecture:
        return _nearest(space, cost, target, rng, taken)

    inner = CALIBRATION_NETWORKS - 2
    calibration = [draw(_between(low, high, (i + 1) / (inner + 1))) for i in range(inner)]
    validation = [
        draw(_between(low, high, (i + 0.5) / VALIDATION_NETWORKS))
        for i in range(VALIDATION_NETWORKS)
    ]
    uniform: list[Architecture] = []
    while len(uniform) < UNIFORM_NETWORKS:
        drawn = space.sample(rng)
        if drawn not in taken:
            taken[drawn] = None
            uniform.append(drawn)
    ends = (space.smallest, space.largest)
    return NetworkChoice((*ends, *calibration), tuple(validation), tuple(uniform))


def spaced_networks(
    space: SearchSpace, cost: Cost, count: int, rng: Random
) -> tuple[Architecture, ...]:
    """Distinct networks, evenly spaced in log cost between the ends of the space, cheapest first.

    Raises InputError for a space that is too small to choose from.
    """
    if space.size < 2 * count:
        raise InputError(
            f"space {space.name} holds {space.size} networks, too few to choose {count} of them: "
            "ask for fewer, or give the space more choices"
        )
    low, high = sorted((cost(space.smallest), cost(space.largest)))
    taken: dict[Architecture, None] = {}
    for i in range(count):
        _nearest(space, cost, _between(low, high, (i + 0.5) / count), rng, taken)
    return tuple(taken)


def _between(low: float, high: float, position: float) -> float:
    return low * (high / low) ** position


def _nearest(
    space: SearchSpace,
    cost: Cost,
    target: float,
    rng: Random,
    taken: dict[Architecture, None],
) -> Architecture:
    """A random network of about the target's cost: a draw, then mutations that come closer."""

    def distance(architecture: Architecture) -> float:
        # Never a network that has a role already.
        return math.inf if architecture in taken else abs(math.log(cost(architecture) / target))

    best = space.sample(rng)
    best_distance = distance(best)
    for _ in range(_STEPS):
        if best_distance < _NEAR:
            break
        # Small steps near the target, where large ones mostly overshoot; strays keep it exploring.
        candidate = space.mutate(best, rng, 0.1 if rng.random() < 0.7 else 0.4)
        candidate_distance = distance(candidate)
        if candidate_distance < best_distance:
            best, best_distance = candidate, candidate_distance
    while best in taken:  # a tiny space, and every step fell on a network in use
        best = space.sample(rng)
    taken[best] = None
    return best
