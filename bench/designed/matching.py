"""A hand-designed network as fast as a given one: shapes timed beside it, never by themselves.

1. At every depth a bisection over width asks: is this one faster than the reference, or slower?
   All depths of all families take turns with the reference in the same rounds.
2. A fit to these few timings, smooth in width and depth, picks the likeliest shapes of each family.
   They are timed longer, beside the reference; the closest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from designed.families import Family, Shape
from vitresnas.files import JsonObject
from vitresnas.latency.statistics import Measurement
from vitresnas.models.timm_sized import TimmNetwork
from vitresnas.space import SearchSpace

TOLERANCE = 0.03  # of the reference's throughput
_SHORTLIST = 6  # of each family
_PROBE_ROUNDS = 6
_NEAR = math.log(2.0)  # probes that tell of the reference's neighbourhood
_REFERENCE = "reference"

# (networks by name, least rounds or None for as many as precision needs) -> samples by name
Clock = Callable[[Mapping[str, nn.Module], int | None], Mapping[str, Measurement]]
Tried = list[tuple[Shape, float]]  # speeds in those of the reference


@dataclass
class _Depth:
    """A family's shapes of one depth, from fast to slow, and where the reference may lie."""

    family: str
    shapes: Sequence[Shape]
    low: int = 0

    def __post_init__(self) -> None:
        self.high = len(self.shapes)

    @property
    def open(self) -> bool:
        return self.low < self.high

    @property
    def probe(self) -> Shape:
        return self.shapes[(self.low + self.high) // 2]

    def learn(self, speed: float) -> None:
        """speed: of the probe, in those of the reference."""
        middle = (self.low + self.high) // 2
        if speed >= 1:
            self.low = middle + 1
        else:
            self.high = middle


def match(
    families: Sequence[Family],
    space: SearchSpace,
    reference: nn.Module,
    clock: Clock,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, JsonObject]:
    """The network of each family whose throughput is nearest to the reference's.

    By family: {"network", "relative", "relative_interval_95", "shortlist": the same of all that
    were timed longer}; `relative` is in throughputs of the reference.
    """
    by_depth = {family.name: list(family.shapes(space)) for family in families}
    depths = [_Depth(name, shapes) for name, rows in by_depth.items() for shapes in rows]
    tried: dict[str, Tried] = {name: [] for name in by_depth}
    while probed := [depth for depth in depths if depth.open]:
        say(f"timing {len(probed)} shapes beside the network found")
        shapes = [depth.probe for depth in probed]
        found = _relative(reference, shapes, space, clock, _PROBE_ROUNDS)
        for depth, shape, (speed, _) in zip(probed, shapes, found, strict=True):
            tried[depth.family].append((shape, speed))
            depth.learn(speed)
    nearest = [
        (name, shape)
        for name, rows in by_depth.items()
        for shape in _shortlist(tried[name], [shape for row in rows for shape in row])
    ]
    say(f"timing the {len(nearest)} shapes that should come nearest")
    timed = _relative(reference, [shape for _, shape in nearest], space, clock, None)
    told: dict[str, list[JsonObject]] = {name: [] for name in by_depth}
    for (name, shape), result in zip(nearest, timed, strict=True):
        told[name].append(_told(shape.network, *result))
    return {name: _nearest(timings) for name, timings in told.items()}


def _shortlist(tried: Tried, shapes: Sequence[Shape]) -> list[Shape]:
    """Those of `shapes` that are expected to be as fast as the reference."""
    near = [one for one in tried if abs(math.log(one[1])) < _NEAR]
    known = near if len(near) >= _SHORTLIST else tried
    weights, *_ = np.linalg.lstsq(
        np.array([_features(shape) for shape, _ in known]),
        np.array([math.log(speed) for _, speed in known]),
        rcond=None,
    )
    return sorted(shapes, key=lambda shape: abs(float(_features(shape) @ weights)))[:_SHORTLIST]


def _features(shape: Shape) -> np.ndarray:
    """Time is about a product of powers; the square is for launches, which wide layers hide."""
    depth, channels = math.log(shape.depth), math.log(shape.channels)
    return np.array([1.0, depth, channels, channels**2])


def _nearest(told: Sequence[JsonObject]) -> JsonObject:
    ordered = sorted(told, key=lambda one: abs(math.log(one["relative"])))
    return {**ordered[0], "shortlist": ordered}


def _told(network: TimmNetwork, speed: float, interval: tuple[float, float]) -> JsonObject:
    return {
        "network": network.to_json(),
        "relative": speed,
        "relative_interval_95": list(interval),
    }


def _relative(
    reference: nn.Module,
    shapes: Sequence[Shape],
    space: SearchSpace,
    clock: Clock,
    rounds: int | None,
) -> list[tuple[float, tuple[float, float]]]:
    """Each one's throughput over the reference's, compared round by round, with its interval."""
    modules = {str(n): shape.network.create(space.classes) for n, shape in enumerate(shapes)}
    times = clock({_REFERENCE: reference, **modules}, rounds)
    return [times[name].speedup_over(times[_REFERENCE]) for name in modules]
