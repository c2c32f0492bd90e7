"""Bounds on what a network may cost, and the throughput a user asks for.

A cost is a number that every architecture has before anyone runs it. To add one, add a row to
`COSTS` and the line that computes it in `costs_of`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from vitresnas.errors import InputError
from vitresnas.files import JsonObject
from vitresnas.space import Architecture, Operation, SearchSpace, macs, parameters


class Throughput(Protocol):
    """Predicts speed: a latency table, or anything with this one method."""

    def images_per_second(self, architecture: Architecture) -> float: ...


Piece = Callable[[Operation], float]


@runtime_checkable
class AdditiveThroughput(Protocol):
    """A prediction whose time is a sum over operations, or bounded from below by such sums.

    For each piece function p, milliseconds(a) >= constant + sum of p over operations(a), and the
    largest of them is attained; one function alone means equality.
    """

    @property
    def pieces(self) -> Sequence[Piece]: ...

    def images_per_second(self, architecture: Architecture) -> float: ...

    def images_per_second_of(self, pieces_milliseconds: float) -> float:
        """The throughput of a network whose pieces sum to this."""
        ...


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
        Cost("latency", "ms per batch", at_least=False),
        Cost("latency_batch_1", "ms at batch 1", at_least=False),
        Cost("peak_memory", "bytes", at_least=False),
        Cost("energy", "J per image", at_least=False),
    )
}
# What only a latency table knows, computed where a constraint asks for it.
OF_TABLES = ("latency", "latency_batch_1", "peak_memory", "energy")


class TableCosts(Protocol):
    """Predicts the costs of `OF_TABLES`."""

    def cost(self, name: str, architecture: Architecture) -> float:
        """Raises InputError where the table does not tell."""
        ...

    def cost_reach(self, name: str, space: SearchSpace) -> CostReach: ...

    def as_throughput(self, name: str, bound: float) -> tuple[AdditiveThroughput, float] | None:
        """What predicts speed, and the images per second that the bound asks for; None for a cost
        that is no time."""
        ...

    def told(self) -> tuple[str, ...]:
        """Those of `OF_TABLES` that this predictor tells."""
        ...


@dataclass(frozen=True)
class CostReach:
    """No network of a space costs less than `minimum`, none more than `maximum`; `lean` is the
    best that is known."""

    minimum: float
    maximum: float
    lean: Architecture

    def allows(self, constraint: Constraint) -> bool:
        """Whether some network may keep a constraint on this cost."""
        if constraint.cost.at_least:
            return self.maximum >= constraint.bound
        return self.minimum <= constraint.bound


def costs_of(
    architecture: Architecture, throughput: Throughput | None, names: Iterable[str] = ()
) -> dict[str, float]:
    """Every cost by name; without a predictor there is no throughput.

    `names`: which costs of tables are wanted beside the ones that are always there.
    """
    costs: dict[str, float] = {"macs": macs(architecture), "parameters": parameters(architecture)}
    if throughput is not None:
        costs["throughput"] = throughput.images_per_second(architecture)
    for name in names:
        if name in OF_TABLES:
            costs[name] = table_costs(throughput, name).cost(name, architecture)
    return costs


def table_costs(throughput: Throughput | None, name: str) -> TableCosts:
    """The predictor as one that tells table costs, too. Raises InputError where it is none."""
    if throughput is None or not hasattr(throughput, "cost_reach"):
        raise InputError(f"{name} is only known from a latency table: give --latency-table FILE")
    return cast(TableCosts, throughput)


def costs_told(throughput: Throughput | None) -> tuple[str, ...]:
    """Those of `OF_TABLES` that a predictor tells; none where it predicts speed alone."""
    told = getattr(throughput, "told", None)
    return told() if told else ()


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
_BYTES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_UNITS = {
    "peak_memory": {**_FACTORS, "B": 1.0, **_BYTES},
    "latency": {"": 1.0, **_MILLISECONDS},
    "latency_batch_1": {"": 1.0, **_MILLISECONDS},
    "energy": {"": 1.0, "J": 1.0, "mJ": 1e-3},
}


def parse_constraint(text: str) -> Constraint:
    """Read `NAME=VALUE`, the value with an optional k, M or G, or a unit: 64MB, 5ms, 20mJ.

    Raises InputError.
    """
    name, equals, value = text.partition("=")
    found = re.fullmatch(r"\s*([0-9.eE+-]+?)\s*([A-Za-z]*)\s*", value)
    factors = _UNITS.get(name.strip(), _FACTORS)
    try:
        bound = float(found[1]) * factors[found[2]] if found else math.nan
    except (ValueError, KeyError):
        bound = math.nan
    if not equals or (name.strip() in COSTS and not math.isfinite(bound)):
        raise InputError(
            f"the constraint is {text!r}: write NAME=VALUE, as in macs=20e6, parameters=2M, "
            f"peak_memory=64MB or latency=5ms; names are {', '.join(COSTS)}"
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
