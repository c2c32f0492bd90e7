"""Which page a path gets."""

from __future__ import annotations

from pathlib import Path

from vitresnas.errors import InputError
from vitresnas.files import kind_of
from vitresnas.latency.table import load_tables
from vitresnas.report.against import beside
from vitresnas.report.latency import latency_page
from vitresnas.report.quickstart import RESULT as QUICKSTART
from vitresnas.report.quickstart import quickstart_page
from vitresnas.report.search import search_page
from vitresnas.report.training import RUN, Run, training_page
from vitresnas.search.result import SearchResult

FILES = ("search_result.json", QUICKSTART, "latency_table.json", RUN)


def render_report(path: str | Path, against: str | Path | None = None) -> str:
    """The HTML page of a table, a search, a training run or a quickstart, by file or folder.

    `against`: another file of latency tables, to stand beside the first one's. Raises InputError
    for anything else, FileFormatError for a damaged file.
    """
    found = _file(Path(path))
    kind = kind_of(found)
    if against is not None and kind != "latency_table":
        raise InputError(f"--against is for latency tables and {found} is a {kind}: leave it out")
    if kind == "latency_table":
        tables = load_tables(found)
        if against is None:
            return latency_page(tables, str(path))
        names = (str(path), str(against))
        return latency_page(
            tables, names[0], beside(tables, load_tables(_file(Path(against))), names)
        )
    if kind == "search_result":
        return search_page(SearchResult.load(found), Path(path).name)
    if kind == "quickstart_result":
        return quickstart_page(found)
    if kind == "training_run":
        return training_page(Run.load(found.parent))
    raise InputError(
        f"{found} is a {kind} file, which has no report: name a latency table, a search result, "
        "a training run, a quickstart's result, or a directory with one"
    )


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path} holds none of {', '.join(FILES)}: name the file itself")
