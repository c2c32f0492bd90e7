"""The page around the charts: one file of HTML with its style and script inside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Protocol

from vitresnas.search.check import VERDICTS

# A browser then refuses any request, whatever the page holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_NUMBER = re.compile(r"[\d.,+-]+( ?[%kMGx])?( to [\d.,+-]+)?")


class Drawing(Protocol):
    def svg(self) -> str: ...


@dataclass(frozen=True)
class Tile:
    """A figure to read first: what it is, its value, and what belongs to it."""

    name: str
    value: str
    note: str = ""


def page(
    title: str, summary: str, sections: Iterable[str], *, badge: str = "", script: str = ""
) -> str:
    """A whole document. `title`, `summary` and `badge` (a verdict) are text, sections are HTML;
    script: a file of this folder that runs before page.js."""
    here = files("vitresnas.report")
    style = (here / "page.css").read_text(encoding="utf-8")
    scripts = [(here / name).read_text(encoding="utf-8") for name in (script, "page.js") if name]
    chip = f'<span class="badge {escape(badge)}">{escape(badge)}</span> ' if badge else ""
    heading = title.removesuffix(f": {badge}") if badge else title
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body><main>"
        f'<h1>{escape(heading)} {chip}</h1><p class="summary">{escape(summary)}</p>\n'
        + "\n".join(sections)
        + f'</main><div id="hover" hidden></div><script>{"".join(scripts)}</script></body></html>\n'
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it, as HTML."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def charts(*found: Drawing) -> str:
    """Charts side by side where there is room."""
    return f'<div class="charts">{"".join(chart.svg() for chart in found)}</div>'


def columns(left: str, right: str) -> str:
    """Two pieces of HTML side by side where there is room."""
    return f'<div class="columns"><div>{left}</div><div>{right}</div></div>'


def tiles(*found: Tile) -> str:
    """What to read first."""
    return '<div class="tiles">' + "".join(
        f"<div><span>{escape(tile.name)}</span><b>{escape(tile.value)}</b>"
        f"<span>{escape(tile.note)}</span></div>"
        for tile in found
    ) + "</div>"  # fmt: skip


def table(head: Sequence[str], rows: Iterable[Sequence[object]], keys: Sequence[str] = ()) -> str:
    """A table of text; numbers stand to the right. keys: what the rows are about, as in charts."""
    written = [[str(cell) for cell in row] for row in rows]
    right = [
        bool(written) and all(not row[n] or _NUMBER.fullmatch(row[n]) for row in written)
        for n in range(len(head))
    ]
    top = "".join(
        f"<th{_side(side)}>{escape(name)}</th>" for name, side in zip(head, right, strict=True)
    )
    body = []
    for index, row in enumerate(written):
        key = f' data-key="{escape(keys[index])}"' if keys else ""
        cells = (_cell(cell, side) for cell, side in zip(row, right, strict=True))
        body.append(f"<tr{key}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def facts(values: Mapping[str, object]) -> str:
    """Names and values, nested ones as `outer.inner`."""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in _flat(values)
    )
    return f'<dl class="facts">{rows}</dl>'


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{escape(words)}</p>"


def _side(right: bool) -> str:
    return ' class="number"' if right else ""


def _cell(words: str, right: bool) -> str:
    if words in VERDICTS:
        return f'<td><span class="badge {words}">{words}</span></td>'
    return f"<td{_side(right)}>{escape(words)}</td>"


def _flat(values: Mapping[str, object], before: str = "") -> Iterable[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value not in ("", None, [], ()):
            if isinstance(value, (list, tuple)):
                value = ", ".join(map(str, value))
            yield before + name, f"{value:.6g}" if isinstance(value, float) else value
