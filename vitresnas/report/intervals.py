"""A dot and its interval per row, as in a forest plot: what was timed beside what."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from vitresnas.report.chart import WIDTH, mark
from vitresnas.report.scale import Axis, Scale, number

_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 168, 152, 26, 24, 46


@dataclass(frozen=True)
class Row:
    """`guess` is drawn as a ring beside `value` and its interval; `words` stand at the end."""

    name: str
    words: str
    value: float
    interval: tuple[float, float] | None = None
    guess: float | None = None
    style: str = "dots"
    colour: str = "strong"
    key: str = ""


@dataclass(frozen=True)
class Intervals:
    title: str
    label: str
    rows: tuple[Row, ...]
    verticals: tuple[tuple[float, str], ...] = ()
    note: str = ""

    def svg(self) -> str:
        """The picture with its title and note, as an HTML figure."""
        values = [v for row in self.rows for v in (row.value, *(row.interval or ()))]
        values += [row.guess for row in self.rows if row.guess is not None]
        values += [value for value, _ in self.verticals]
        x = Scale.over(values, Axis(self.label), _LEFT, WIDTH - _RIGHT)
        bottom = _TOP + _ROW * len(self.rows)
        parts = []
        for tick in x.ticks():
            at = x.at(tick)
            parts.append(
                f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>'
                f'<text x="{at:.1f}" y="{bottom + 16}" class="x">{number(tick)}</text>'
            )
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        parts.append(
            f'<text x="{middle}" y="{bottom + 36}" class="x label">{escape(self.label)}</text>'
        )
        for value, text in self.verticals:
            at = x.at(value)
            parts.append(
                f'<path class="line dashes c-alarm" d="M{at:.1f} {_TOP - 6}V{bottom}"/>'
                f'<text x="{at:.1f}" y="{_TOP - 11}" class="x words c-alarm">{escape(text)}</text>'
            )
        for index, row in enumerate(self.rows):
            parts.append(_draw(row, x, _TOP + _ROW * (index + 0.5)))
        return (
            f"<figure><h3>{escape(self.title)}</h3>"
            f'<svg class="chart" viewBox="0 0 {WIDTH} {bottom + _BOTTOM}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(parts)}</svg>'
            f"<figcaption>{escape(self.note)}</figcaption></figure>"
        )


def _draw(row: Row, x: Scale, y: float) -> str:
    parts = [f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" class="y name">{escape(row.name)}</text>']
    if row.guess is not None:
        place = f'transform="translate({x.at(row.guess):.1f} {y:.1f})"'
        parts.append(mark("rings", row.colour, place))
    if row.interval:
        low, high = map(x.at, row.interval)
        parts.append(
            f'<path class="whisker c-{row.colour}" d="M{low:.1f} {y:.1f}H{high:.1f}'
            f'M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8"/>'
        )
    attributes = (
        f'transform="translate({x.at(row.value):.1f} {y:.1f})" data-key="{escape(row.key)}" '
        f'data-text="{escape(row.name)}: {escape(row.words)}"'
    )
    parts.append(mark(row.style, row.colour, attributes, f" point {row.style}"))
    end = WIDTH - _RIGHT + 12
    parts.append(f'<text x="{end}" y="{y + 4:.1f}" class="name">{escape(row.words)}</text>')
    return "".join(parts)
