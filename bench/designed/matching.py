"""A hand-designed network as fast as a given one: shapes timed beside it, never by themselves.

1. At every depth the width is halved in on: is this one faster than the reference, or slower? All
   depths of all families take turns with the reference in the same rounds.
2. The shapes that came nearest are timed once more, longer; the nearest of each family is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from designed.families import Family
from vitresnas.files import JsonObject
from vitresnas.latency.statistics import Measurement
from vitresnas.models.timm_sized import TimmNetwork
from vitresnas.space import SearchSpace

TOLERANCE = 0.03  # of the reference's throughput
_SHORTLIST = 6  # of each family
_PROBE_ROUNDS = 6
_REFERENCE = "reference"

# (networks by name, least rounds or None for as many as precision needs) -> samples by name
Clock = Callable[[Mapping[str, nn.Module], int | None], Mapping[str, Measurement]]


@dataclass
class _Depth:
    """A family's networks of one depth, from fast to slow, and where the reference may lie."""

    family: str
    networks: Sequence[TimmNetwork]
    low: int = 0

    def __post_init__(self) -> None:
        self.high = len(self.networks)

    @property
    def open(self) -> bool:
        return self.low < self.high

    @property
    def probe(self) -> TimmNetwork:
        return self.networks[(self.low + self.high) // 2]

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
    known: dict[str, TimmNetwork] = {}
    speeds: dict[str, dict[str, float]] = {family.name: {} for family in families}  # by id
    depths = [_Depth(one.name, networks) for one in families for networks in one.networks(space)]
    while probed := [depth for depth in depths if depth.open]:
        say(f"timing {len(probed)} shapes beside the network found")
        networks = [depth.probe for depth in probed]
        found = _relative(reference, networks, space, clock, _PROBE_ROUNDS)
        for depth, network, (speed, _) in zip(probed, networks, found, strict=True):
            known[network.id] = network
            speeds[depth.family][network.id] = speed
            depth.learn(speed)
    near = {
        family: sorted(tried, key=lambda key: abs(math.log(tried[key])))[:_SHORTLIST]
        for family, tried in speeds.items()
    }
    ids = [key for keys in near.values() for key in keys]
    say(f"timing the {len(ids)} nearest shapes")
    timed = _relative(reference, [known[key] for key in ids], space, clock, None)
    told = {key: _told(known[key], *result) for key, result in zip(ids, timed, strict=True)}
    return {family: _nearest([told[key] for key in keys]) for family, keys in near.items()}


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
    networks: Sequence[TimmNetwork],
    space: SearchSpace,
    clock: Clock,
    rounds: int | None,
) -> list[tuple[float, tuple[float, float]]]:
    """Each one's throughput over the reference's, compared round by round, with its interval."""
    modules = {str(place): one.create(space.classes) for place, one in enumerate(networks)}
    times = clock({_REFERENCE: reference, **modules}, rounds)
    return [times[name].speedup_over(times[_REFERENCE]) for name in modules]
