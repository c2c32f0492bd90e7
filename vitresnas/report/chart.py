"""Charts as SVG text: points and lines on one pair of axes, hover text on every point.

A page of results needs scatter plots, a diagonal and a few lines; drawing those keeps a report at
some hundred kilobytes that open anywhere, where an embedded plotting library brings megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 640, 420
LEFT, RIGHT, TOP, BOTTOM = 72, 16, 16, 52
COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#666666")


@dataclass(frozen=True)
class Point:
    """One mark. `key` ties marks of several charts, and of the page's table, to one thing."""

    x: float
    y: float
    text: str = ""
    key: str = ""


@dataclass(frozen=True)
class Series:
    name: str
    points: tuple[Point, ...]
    style: str = "dots"  # or "line", "dashes", "rings", "stars"
    colour: str = ""


@dataclass(frozen=True)
class Axis:
    """`label` carries the unit; `log` needs positive values; `zero` includes it."""

    label: str
    log: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Chart:
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    note: str = ""
    diagonal: bool = False  # y = x
    verticals: tuple[tuple[float, str], ...] = field(default=())

    def svg(self) -> str:
        """The chart with its title and note, as an HTML figure."""
        xs = [p.x for s in self.series for p in s.points] + [x for x, _ in self.verticals]
        ys = [p.y for s in self.series for p in s.points]
        if not xs or not ys:
            return f"<figure><h3>{escape(self.title)}</h3><p>nothing to draw</p></figure>"
        if self.diagonal:
            xs = ys = xs + ys
        x = _Scale.over(xs, self.x, LEFT, WIDTH - RIGHT)
        y = _Scale.over(ys, self.y, HEIGHT - BOTTOM, TOP)
        parts = [_grid(x, y, self.x, self.y)]
        if self.diagonal:
            ends = (x.low, x.high)
            parts.append(_path([(x.at(e), y.at(e)) for e in ends], "#999", dashes=True))
        for where, text in self.verticals:
            parts.append(_path([(x.at(where), TOP), (x.at(where), HEIGHT - BOTTOM)], "#c0392b"))
            parts.append(
                f'<text x="{x.at(where) + 4:.1f}" y="{TOP + 12}" class="mark">{escape(text)}</text>'
            )
        for number, series in enumerate(self.series):
            colour = series.colour or COLOURS[number % len(COLOURS)]
            parts.append(_series(series, colour, x, y))
        legend = "".join(
            f'<span><i style="background:{s.colour or COLOURS[n % len(COLOURS)]}"></i>'
            f"{escape(s.name)}</span>"
            for n, s in enumerate(self.series)
            if s.name
        )
        return (
            f"<figure><h3>{escape(self.title)}</h3>"
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">'
            f'{"".join(parts)}</svg><div class="legend">{legend}</div>'
            f"<figcaption>{escape(self.note)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class _Scale:
    """Values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], axis: Axis, start: float, end: float) -> _Scale:
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


def _grid(x: _Scale, y: _Scale, x_axis: Axis, y_axis: Axis) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines = []
    for tick in x.ticks():
        at = x.at(tick)
        lines.append(f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>')
        lines.append(f'<text x="{at:.1f}" y="{bottom + 16}" class="x">{number(tick)}</text>')
    for tick in y.ticks():
        at = y.at(tick)
        lines.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" class="y">{number(tick)}</text>')
    middle = (TOP + bottom) / 2
    lines.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" class="x label">{escape(x_axis.label)}'
        f'</text><text transform="translate(16 {middle}) rotate(-90)" class="x label">'
        f"{escape(y_axis.label)}</text>"
    )
    return "".join(lines)


def _path(points: Sequence[tuple[float, float]], colour: str, dashes: bool = False) -> str:
    d = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    dash = ' stroke-dasharray="5 4"' if dashes else ""
    return f'<path class="line" d="{d}" stroke="{colour}"{dash}/>'


def _series(series: Series, colour: str, x: _Scale, y: _Scale) -> str:
    places = [(x.at(p.x), y.at(p.y)) for p in series.points]
    if series.style in ("line", "dashes"):
        return _path(places, colour, dashes=series.style == "dashes") if places else ""
    marks = []
    for point, (a, b) in zip(series.points, places, strict=True):
        attributes = f'data-text="{escape(point.text)}" data-key="{escape(point.key)}" tabindex="0"'
        if series.style == "stars":
            marks.append(
                f'<path class="point star" {attributes} fill="{colour}" '
                f'd="M{a:.1f} {b - 8:.1f}l2.4 5 5.4.6-4 3.7 1.1 5.4-4.9-2.7-4.9 2.7 1.1-5.4-4-3.7'
                f' 5.4-.6z"/>'
            )
        else:
            fill = "none" if series.style == "rings" else colour
            marks.append(
                f'<circle class="point" {attributes} cx="{a:.1f}" cy="{b:.1f}" r="4" '
                f'fill="{fill}" stroke="{colour}"/>'
            )
    return "".join(marks)
