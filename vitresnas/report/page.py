"""The page around the charts: one file of HTML with its style and script inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from vitresnas.report.chart import Chart


def page(title: str, summary: str, sections: Iterable[str]) -> str:
    """A whole document. `title` and `summary` are text, sections are HTML."""
    here = files("vitresnas.report")
    style = (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body><main>"
        f"<h1>{escape(title)}</h1><p>{escape(summary)}</p>\n"
        + "\n".join(sections)
        + f'</main><div id="hover" hidden></div><script>{script}</script></body></html>\n'
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it, as HTML."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def charts(*found: Chart) -> str:
    """Charts side by side where there is room."""
    return f'<div class="charts">{"".join(chart.svg() for chart in found)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def facts(values: Mapping[str, object]) -> str:
    """Names and values, nested ones as `outer.inner`."""
    return table(("", ""), list(_flat(values)))


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{escape(words)}</p>"


def _flat(values: Mapping[str, object], before: str = "") -> Iterable[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value not in ("", None):
            yield before + name, f"{value:.6g}" if isinstance(value, float) else value
