"""Charts as SVG text: points and lines on one pair of axes, hover text on every point.

A page of results needs scatter plots, a diagonal and a few lines; drawing those keeps a report at
some hundred kilobytes that open anywhere, where an embedded plotting library brings megabytes.
Colours are names; page.css has their values by daylight and in the dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from vitresnas.report.scale import Axis, Scale, number

WIDTH, HEIGHT = 640, 420
LEFT, RIGHT, TOP, BOTTOM = 72, 16, 16, 52
CATEGORIES = 8  # c0 to c7 in page.css

# Around the origin, of about equal area. Whoever tells no colours apart still tells these.
SHAPES = {
    "dots": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "squares": "M-4.5-4.5h9v9h-9z",
    "diamonds": "M0-6L6 0L0 6L-6 0z",
    "triangles": "M0-5.5L5.2 4H-5.2z",
    "stars": "M0-9l2.6 5.7 6.2.7-4.6 4.2 1.3 6.1L0 4.6l-5.5 3.1 1.3-6.1-4.6-4.2 6.2-.7z",
}
LINES = ("line", "dashes", "steps")
COLOURS = ("quiet", "strong", "accent", "alarm", "plain", *(f"c{n}" for n in range(CATEGORIES)))


@dataclass(frozen=True)
class Point:
    """One mark. `key` ties marks of several charts, and of the page's tables, to one thing.

    label: written beside the mark. x_range, y_range: drawn as whiskers.
    """

    x: float
    y: float
    text: str = ""
    key: str = ""
    label: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Series:
    """style: one of `SHAPES` or `LINES`, or "rings"; colour: one of `COLOURS`, or the next free."""

    name: str
    points: tuple[Point, ...]
    style: str = "dots"
    colour: str = ""

    def __post_init__(self) -> None:
        if self.colour and self.colour not in COLOURS:
            raise ValueError(f"colour {self.colour!r} is none of {', '.join(COLOURS)}")


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
        points = [p for s in self.series for p in s.points]
        xs = [v for p in points for v in (p.x, *(p.x_range or ()))]
        xs += [x for x, _ in self.verticals]
        ys = [v for p in points for v in (p.y, *(p.y_range or ()))]
        if not points:
            return f"<figure><h3>{escape(self.title)}</h3><p>nothing to draw</p></figure>"
        if self.diagonal:
            xs = ys = xs + ys
        x = Scale.over(xs, self.x, LEFT, WIDTH - RIGHT)
        y = Scale.over(ys, self.y, HEIGHT - BOTTOM, TOP)
        parts = [_grid(x, y, self.x, self.y)]
        if self.diagonal:
            ends = (x.low, x.high)
            parts.append(_line([(x.at(e), y.at(e)) for e in ends], "quiet", "dashes"))
        for where, text in self.verticals:
            at = x.at(where)
            parts.append(_line([(at, TOP), (at, HEIGHT - BOTTOM)], "alarm", "dashes"))
            parts.append(
                f'<text x="{at:.1f}" y="{TOP - 5}" class="x words c-alarm">{escape(text)}</text>'
            )
        styles = [(s, s.colour or f"c{n % CATEGORIES}") for n, s in enumerate(self.series)]
        parts += [_series(series, colour, x, y) for series, colour in styles]
        legend = "".join(
            _legend(s.name, s.style, colour) for s, colour in styles if s.name and s.points
        )
        return (
            f"<figure><h3>{escape(self.title)}</h3>"
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(parts)}</svg>'
            f'<div class="legend">{legend}</div>'
            f"<figcaption>{escape(self.note)}</figcaption></figure>"
        )


def mark(style: str, colour: str, attributes: str = "", extra: str = "") -> str:
    """A shape around the origin, to be moved by a `transform` among the attributes."""
    hollow = " hollow" if style == "rings" else ""
    shape = SHAPES["dots" if style == "rings" else style]
    return f'<path class="c-{colour}{hollow}{extra}" {attributes} d="{shape}"/>'


def _grid(x: Scale, y: Scale, x_axis: Axis, y_axis: Axis) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines = []
    for tick in x.ticks():
        at = x.at(tick)
        lines.append(f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>')
        lines.append(f'<text x="{at:.1f}" y="{bottom + 18}" class="x">{number(tick)}</text>')
    for tick in y.ticks():
        at = y.at(tick)
        lines.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" class="y">{number(tick)}</text>')
    middle = (TOP + bottom) / 2
    lines.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" class="x label">{escape(x_axis.label)}'
        f'</text><text transform="translate(16 {middle}) rotate(-90)" class="x label">'
        f"{escape(y_axis.label)}</text>"
    )
    return "".join(lines)


def _line(points: Sequence[tuple[float, float]], colour: str, style: str) -> str:
    d = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for a, b in points[1:]:
        d += f"H{a:.1f}V{b:.1f}" if style == "steps" else f"L{a:.1f} {b:.1f}"
    return f'<path class="line {style} c-{colour}" d="{d}"/>'


def _legend(name: str, style: str, colour: str) -> str:
    if style in LINES:
        drawn = f'<path class="line {style} c-{colour}" d="M-9 0H9"/>'
    else:
        drawn = mark(style, colour)
    return f'<span><svg viewBox="-9 -9 18 18" aria-hidden="true">{drawn}</svg>{escape(name)}</span>'


def _words(x: float, y: float, text: str, cls: str = "") -> str:
    """Beside a place, on the side where there is room."""
    end = x > WIDTH - RIGHT - 7 * len(text) - 12
    return (
        f'<text x="{x + (-9 if end else 9):.1f}" y="{y:.1f}" '
        f'class="words {cls}{" end" if end else ""}">{escape(text)}</text>'
    )


def _series(series: Series, colour: str, x: Scale, y: Scale) -> str:
    places = [(x.at(p.x), y.at(p.y)) for p in series.points]
    if series.style in LINES:
        return _line(places, colour, series.style) if places else ""
    marks = []
    for point, (a, b) in zip(series.points, places, strict=True):
        if point.x_range:
            ends = [x.at(v) for v in point.x_range]
            marks.append(f'<path class="whisker c-{colour}" d="{_whisker(ends, b, False)}"/>')
        if point.y_range:
            ends = [y.at(v) for v in point.y_range]
            marks.append(f'<path class="whisker c-{colour}" d="{_whisker(ends, a, True)}"/>')
        attributes = f'transform="translate({a:.1f} {b:.1f})" data-key="{escape(point.key)}"'
        if point.text:
            attributes += f' data-text="{escape(point.text)}"'
        marks.append(mark(series.style, colour, attributes, f" point {series.style}"))
        if point.label:
            marks.append(_words(a, b - 9, point.label))
    return "".join(marks)


def _whisker(ends: Sequence[float], across: float, vertical: bool) -> str:
    low, high = ends
    if vertical:
        cap = f"M{across - 4:.1f} {{0:.1f}}h8"
        return f"M{across:.1f} {low:.1f}V{high:.1f}" + cap.format(low) + cap.format(high)
    cap = f"M{{0:.1f}} {across - 4:.1f}v8"
    return f"M{low:.1f} {across:.1f}H{high:.1f}" + cap.format(low) + cap.format(high)
