"""A result as one self-contained HTML page.

python -m vitresnas.report runs/search
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.files import atomic_path
from vitresnas.report.render import render_report


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas report",
        description="A latency table, a search, a training run or a quickstart as one HTML page.",
        example="vitresnas report runs/search",
    )
    parser.add_argument(
        "path",
        type=Path,
        help="latency_table.json, search_result.json, training_run.json, quickstart_result.json, "
        "or its folder",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="another latency table of the same condition to show beside it, as a transferred one",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html beside it")
    parser.add_argument("--json", action="store_true", help="print its path as JSON")
    arguments = parser.parse_args(argv)
    page = render_report(arguments.path, arguments.against)
    folder = arguments.path if arguments.path.is_dir() else arguments.path.parent
    name = "report.html" if arguments.path.is_dir() else f"{arguments.path.stem}.html"
    out = arguments.out or folder / name
    with atomic_path(out) as partial:
        partial.write_text(page, encoding="utf-8")
    say(f"wrote {out} ({len(page.encode()) / 1024:.0f} KiB): open it in a browser")
    if arguments.json:
        print_json({"report": str(out)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
