"""Bounds on what a network may cost, and the throughput a user asks for.

A cost is a number that every architecture has before anyone runs it. To add one, add a row to
`COSTS` and the line that computes it in `costs_of`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vitresnas.errors import InputError
from vitresnas.files import JsonObject
from vitresnas.space import Architecture, macs, parameters


class Throughput(Protocol):
    """Predicts speed: a latency table, or anything with this one method."""

    def images_per_second(self, architecture: Architecture) -> float: ...


@dataclass(frozen=True)
class Cost:
    name: str
    unit: str
    at_least: bool  # whether a bound on it is a lower one


COSTS = {
    cost.name: cost
    for cost in (
        Cost("throughput", "images/s", at_least=True),
        Cost("macs", "MACs per image", at_least=False),
        Cost("parameters", "parameters", at_least=False),
    )
}


def costs_of(architecture: Architecture, throughput: Throughput | None) -> dict[str, float]:
    """Every cost by name; without a predictor there is no throughput."""
    costs: dict[str, float] = {"macs": macs(architecture), "parameters": parameters(architecture)}
    if throughput is not None:
        costs["throughput"] = throughput.images_per_second(architecture)
    return costs


@dataclass(frozen=True)
class Constraint:
    """A bound on one cost: at least for throughput, at most for the others.

    Raises InputError for an unknown cost or a bound that is not a positive number.
    """

    name: str
    bound: float

    def __post_init__(self) -> None:
        if self.name not in COSTS:
            raise InputError(
                f"there is no constraint {self.name!r}: use {', '.join(COSTS)}, as in macs=20e6"
            )
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise InputError(f"{self.name} is bounded by {self.bound}: use a number above 0")

    @property
    def cost(self) -> Cost:
        return COSTS[self.name]

    def slack(self, costs: Mapping[str, float]) -> float:
        """How far on the right side: 1 on the bound, 2 where it is kept twice over."""
        value = costs[self.name]
        return value / self.bound if self.cost.at_least else self.bound / value

    def __str__(self) -> str:
        sign = ">=" if self.cost.at_least else "<="
        return f"{self.name} {sign} {self.bound:,.6g} {self.cost.unit}"

    def to_json(self) -> JsonObject:
        return {"name": self.name, "bound": self.bound}


def slack(constraints: tuple[Constraint, ...], costs: Mapping[str, float]) -> float:
    """The slack of the tightest constraint; at least 1 means that all are kept."""
    return min((constraint.slack(costs) for constraint in constraints), default=math.inf)


def refuse_twice(constraints: Sequence[Constraint]) -> None:
    """Raise InputError where one cost has two bounds."""
    names = [constraint.name for constraint in constraints]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{twice[0]} is bounded twice: give each constraint once")


_FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


def parse_constraint(text: str) -> Constraint:
    """Read `NAME=VALUE`, the value with an optional k, M or G. Raises InputError."""
    name, equals, value = text.partition("=")
    found = re.fullmatch(r"\s*([0-9.eE+-]+?)\s*([kMG]?)\s*", value)
    try:
        bound = float(found[1]) * _FACTORS[found[2]] if found else math.nan
    except ValueError:
        bound = math.nan
    if not equals or (name.strip() in COSTS and not math.isfinite(bound)):
        raise InputError(
            f"the constraint is {text!r}: write NAME=VALUE, as in macs=20e6 or parameters=2M; "
            f"names are {', '.join(COSTS)}"
        )
    return Constraint(name.strip(), bound)


@dataclass(frozen=True)
class Target:
    """The throughput asked for: images per second, or times the space's largest network."""

    amount: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `2000` (images/s) or `2x` (times the largest network). Raises InputError."""
        number = text.strip().lower()
        relative = number.endswith("x")
        try:
            amount = float(number.removesuffix("x"))
        except ValueError:
            amount = math.nan
        if not (math.isfinite(amount) and amount > 0):
            raise InputError(
                f"the throughput target is {text!r}: give images per second, as in 2000, or a "
                "multiple of the largest network's, as in 2x; both above 0"
            )
        return cls(amount, relative)

    def images_per_second(self, largest: float) -> float:
        """The bound, given the throughput of the largest network."""
        return self.amount * largest if self.relative else self.amount

    def __str__(self) -> str:
        return f"{self.amount:g}x" if self.relative else f"{self.amount:g} images/s"
