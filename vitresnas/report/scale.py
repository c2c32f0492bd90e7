"""Values to pixels, ticks, and numbers short enough to stand beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """`label` carries the unit; `log` needs positive values; `zero` includes it."""

    label: str
    log: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Scale:
    """From `low` at pixel `start` to `high` at pixel `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], axis: Axis, start: float, end: float) -> Scale:
        """All values, and a margin."""
        low, high = min(values), max(values)
        if axis.log:
            low, high = math.log10(low), math.log10(high)
        elif axis.zero:
            low, high = min(low, 0.0), max(high, 0.0)
        margin = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = low - margin, high + margin
        if axis.log:
            low, high = 10**low, 10**high
        return cls(low, high, start, end, axis.log)

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            found = [
                step * 10.0**power
                for power in range(
                    math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
                )
                for step in (1, 2, 5)
            ]
            found = [tick for tick in found if self.low <= tick <= self.high]
            if len(found) >= 3:
                return found
        raw = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
        first = math.ceil(self.low / step)
        return [step * n for n in range(first, math.floor(self.high / step) + 1)]


def number(value: float) -> str:
    """Four significant digits at most; thousands and millions by letter."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if letter == 'k' else unit):.4g}{letter}"
    return f"{value:.4g}"
