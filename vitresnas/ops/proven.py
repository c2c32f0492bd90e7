"""Which GPU kernels a committed benchmark has proven, and on which architecture.

`bench/kernels.py` writes `passed` into a row when the kernel agreed with the float64 reference and
was not slower than the plain-torch reference; a file under bench/results/ says where.
"""

from __future__ import annotations

import functools
from pathlib import Path

from vitresnas.errors import VitresnasError
from vitresnas.files import read_json

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"


@functools.cache
def proven(op: str, backend: str, architecture: str, results: Path = RESULTS) -> bool:
    """True where some results file of `architecture` ("sm_90") has rows for it and all passed."""
    for path in sorted(results.glob("*/kernels*.json")):
        try:
            document = read_json(path, "bench")
        except VitresnasError:
            continue  # an unreadable file proves nothing
        if document.get("environment", {}).get("architecture") != architecture:
            continue
        rows = [
            r for r in document.get("rows", []) if (r.get("op"), r.get("backend")) == (op, backend)
        ]
        if rows and all(row.get("passed") is True for row in rows):
            return True
    return False
