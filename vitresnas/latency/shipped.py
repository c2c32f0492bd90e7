"""Tables that come with the project, by the name of their device. No torch in here.

Whatever the project measured lies in bench/results/<device>/latency_table*.json, which an install
finds beside this package: `vitresnas/results` is a link to it in a checkout, a copy in a wheel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitresnas.errors import FileFormatError, InputError
from vitresnas.latency.table import LatencyTable, load_tables

RESULTS = Path(__file__).resolve().parents[1] / "results"
_FILES = "latency_table*.json"


@dataclass(frozen=True)
class FoundTables:
    """What a user named: every condition of one file, or of one shipped device.

    `where`: in words for complaints. `shipped`: found by name, so of whatever device that is.
    """

    tables: tuple[LatencyTable, ...]
    where: str
    shipped: bool = False


def find_tables(name: str | Path, root: Path = RESULTS) -> FoundTables:
    """The tables of a file, or of a device that the project has measured, as in `cpu-xeon-2core`.

    A file wins over a device of the same name. Raises InputError, listing every shipped device with
    its conditions, for a name that is neither; FileFormatError for a damaged file.
    """
    path = Path(name)
    if path.is_file() or path.name != str(name) or path.suffix == ".json":
        return FoundTables(load_tables(path), str(path))
    if path.name not in shipped_devices(root):
        raise InputError(
            f"{str(name)!r} is neither a file nor a device whose table comes with vitresnas: "
            f"{_what_is_there(root)}"
        )
    # Of one condition measured twice the first file counts; a measured table before an estimate.
    files = sorted((root / path.name).glob(_FILES))
    found = [table for file in files for table in load_tables(file)]
    by_key: dict[object, LatencyTable] = {}
    for table in sorted(found, key=lambda table: table.transfer is not None):
        by_key.setdefault(table.condition.key, table)
    return FoundTables(tuple(by_key.values()), f"the shipped table {path.name}", shipped=True)


def shipped_devices(root: Path = RESULTS) -> tuple[str, ...]:
    """The names that `find_tables` knows."""
    return tuple(sorted({file.parent.name for file in root.glob(f"*/{_FILES}")}))


def _what_is_there(root: Path) -> str:
    """Every device and what its tables hold, in words; a damaged file is named, not hidden."""
    devices = []
    for device in shipped_devices(root):
        try:
            devices.append(f"{device} ({_conditions(find_tables(device, root).tables)})")
        except FileFormatError as error:
            devices.append(f"{device} (damaged: {error})")
    if not devices:
        return f"there is none in {root}, so give a file that bench/latency_table.py wrote"
    return f"use a file, or one of {'; '.join(devices)}"


def _conditions(tables: Sequence[LatencyTable]) -> str:
    return ", ".join(
        f"space {one.space} {one.dtype} batch {one.batch_size} {one.runtime}"
        for one in (table.condition for table in tables)
    )
