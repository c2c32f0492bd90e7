"""Write the pictures of docs/report.md: the page of a committed result in headless Chromium.

python bench/report_pictures.py
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from browser import browser, missing, open_page
from vitresnas.doors import Parser, door, say
from vitresnas.errors import InputError
from vitresnas.report import render_report

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "cpu-xeon-2core" / "search_digits_2x.json"
COLOURS = 255  # flat drawings lose nothing that an eye sees, and most of their bytes
_KEEPS_RARE_ONES = 2  # Pillow's octree; its median cut greys the colour of a single mark
SIZE = {"width": 1320, "height": 1000}


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, example="python bench/report_pictures.py")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "report", help="folder")
    out = parser.parse_args(argv).out
    if reason := missing():
        raise InputError(reason)
    out.mkdir(parents=True, exist_ok=True)
    with browser() as running, tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "search.html"
        source.write_text(render_report(RESULT), encoding="utf-8")
        for scheme in ("light", "dark"):
            page, complaints = open_page(running, source, viewport=SIZE, color_scheme=scheme)
            if complaints:
                raise InputError(f"the page of {RESULT} complains: {complaints[0]}")
            _save(page, out / f"{RESULT.stem}_{scheme}.png", whole=scheme == "light")
        page, _ = open_page(running, source, viewport=SIZE)
        _pin_and_hover(page)
        _save(page, out / "search_compared.png")
    return 0


def _pin_and_hover(page: Any) -> None:
    """Two networks of the front compared, and the card of a third."""
    front = page.locator("svg.chart").first.locator("path.point.c-strong")
    front.nth(1).click()
    front.nth(3).click()
    front.nth(4).hover()


def _save(page: Any, path: Path, whole: bool = False) -> None:
    from PIL import Image

    picture = Image.open(BytesIO(page.screenshot(full_page=whole)))
    picture.convert("RGB").quantize(COLOURS, _KEEPS_RARE_ONES).save(path, optimize=True)
    say(f"wrote {path} ({path.stat().st_size / 1024:.0f} KiB)")


if __name__ == "__main__":
    sys.exit(main())
