"""Check: one constraint against what a finished network really costs, measured or counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject
from vitresnas.search.constraint import COSTS, Constraint

Interval = tuple[float, float]
VERDICTS = ("met", "missed", "undecided", "unproven")
KEPT = ("met", "unproven")  # nothing that was measured speaks against it
# What to do about "undecided".
MEASURE_ON = (
    "a bound lies inside its interval: measure longer on a quiet machine (vitresnas verify "
    "--seconds 60), or search for a network that clears it (vitresnas search --margin 2)"
)


@dataclass(frozen=True)
class Check:
    """`measured` with its 95 % interval where it was timed; None where nothing here can tell.

    unit: of bound, predicted and measured. how: where the measurement comes from.
    """

    name: str
    unit: str
    bound: float
    predicted: float | None
    measured: float | None
    interval_95: Interval | None
    how: str

    @property
    def worst(self) -> float | None:
        """What is judged: the end of the interval on the wrong side, or the one number."""
        if self.interval_95 is None:
            return self.measured
        return self.interval_95[0 if COSTS[self.name].at_least else 1]

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "unproven"
        interval = self.interval_95 or (self.measured, self.measured)
        return judge(interval, self.bound, at_least=COSTS[self.name].at_least)

    @property
    def closeness(self) -> float:
        """How far on the right side: 1 on the bound; where nothing was measured, no obstacle."""
        if self.worst is None:
            return math.inf
        return self.worst / self.bound if COSTS[self.name].at_least else self.bound / self.worst

    @property
    def wanted(self) -> str:
        """The constraint in words."""
        sign = ">=" if COSTS[self.name].at_least else "<="
        return f"{self.name} {sign} {self.bound:,.6g} {self.unit}"

    def __str__(self) -> str:
        text = f"{self.verdict}: {self.wanted}"
        if self.measured is None:
            return f"{text}, {self.how}"
        between = "{:,.5g} to {:,.5g}, ".format(*self.interval_95) if self.interval_95 else ""
        return f"{text}, found {self.measured:,.5g} ({between}{self.how})"

    def to_json(self) -> JsonObject:
        return {
            "name": self.name,
            "unit": self.unit,
            "bound": self.bound,
            "predicted": self.predicted,
            "measured": self.measured,
            "interval_95": self.interval_95 and list(self.interval_95),
            "how": self.how,
            "verdict": self.verdict,
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Check:
        fields = Fields(value, where)
        name = fields.text("name", choices=tuple(COSTS))
        ends = fields.take("interval_95")
        if ends is not None and not (isinstance(ends, list) and len(ends) == 2):
            raise fields.wrong("interval_95", ends, "two numbers, the lower first")
        check = cls(
            name,
            fields.text("unit"),
            fields.number("bound"),
            _optional(fields, "predicted"),
            _optional(fields, "measured"),
            None if ends is None else (float(ends[0]), float(ends[1])),
            fields.text("how"),
        )
        if fields.text("verdict", choices=VERDICTS) != check.verdict:
            raise FileFormatError(f"{where}: the verdict on {name} contradicts its numbers")
        fields.done()
        return check


def _optional(fields: Fields, name: str) -> float | None:
    return None if fields.take(name) is None else fields.number(name, minimum=0)


@dataclass(frozen=True)
class Found:
    """One measured cost, with its 95 % interval where it was timed; how: where it comes from."""

    value: float
    interval_95: Interval | None
    how: str


def check(constraint: Constraint, predicted: float | None, found: Found | str) -> Check:
    """found: what was measured, or why nothing was."""
    unit, name = constraint.cost.unit, constraint.name
    if isinstance(found, str):
        return Check(name, unit, constraint.bound, predicted, None, None, found)
    return Check(name, unit, constraint.bound, predicted, found.value, found.interval_95, found.how)


def judge(interval: Interval, bound: float, *, at_least: bool = True) -> str:
    """ "met" where all of the interval keeps the bound, "missed" where none of it does, and
    "undecided" where the bound lies inside."""
    low, high = interval if at_least else (-interval[1], -interval[0])
    bound = bound if at_least else -bound
    return "met" if low >= bound else "missed" if high < bound else "undecided"


def exit_code(verdict: str) -> int:
    """Of a command that ends with a verdict: 4 where a winner was timed and not proved."""
    return 0 if verdict in KEPT else 4


def verdict_of(checks: Sequence[Check]) -> str:
    """The worst of several; "unproven" where there are none."""
    found = {one.verdict for one in checks} or {"unproven"}
    return max(found, key=("met", "unproven", "undecided", "missed").index)
