"""Which GPU kernels a committed benchmark has proven, and on which architecture.

`bench/kernels.py` writes `passed` into a row when the kernel agreed with the float64 reference and
was not slower than the plain-torch reference; a file under bench/results/ says where.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitresnas.errors import VitresnasError
from vitresnas.files import read_json

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"


@functools.cache
def proven(op: str, backend: str, architecture: str, results: Path = RESULTS) -> bool:
    """True where the results of `architecture` ("sm_90") have rows of both directions, all passed.

    Only files count that list `op` as complete: a benchmark may be killed, or run out of time.
    """
    rows: list[Mapping[str, Any]] = []
    for path in sorted(results.glob("*/kernels*.json")):
        try:
            document = read_json(path, "bench")
        except VitresnasError:
            continue  # an unreadable file proves nothing
        here = document.get("environment", {}).get("architecture") == architecture
        if here and op in document.get("complete", ()):
            found = document.get("rows", [])
            rows += [row for row in found if (row.get("op"), row.get("backend")) == (op, backend)]
    directions = {row.get("direction") for row in rows}
    passed = all(row.get("passed") is True for row in rows)
    return passed and directions >= {"forward", "backward"}
