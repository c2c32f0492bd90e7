"""The held-out networks of a table as points of a chart."""

from __future__ import annotations

from collections.abc import Callable

from vitresnas.latency.validation import Pair, Validation
from vitresnas.report.chart import Point
from vitresnas.report.words import describe_pair

Place = Callable[[Pair], tuple[float, float]]


def predicted_and_measured(pair: Pair) -> tuple[float, float]:
    """Milliseconds by the table and by the clock."""
    return pair.predicted, pair.measured


def marks(check: Validation, place: Place = predicted_and_measured) -> tuple[Point, ...]:
    """A point per network, at the (x, y) of `place`."""
    return tuple(
        Point(*place(pair), describe_pair(pair), pair.architecture.id) for pair in check.pairs
    )
