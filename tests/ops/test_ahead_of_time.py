"""Every Triton kernel compiles for an H100 without a GPU, keeps to its registers, loads in vectors.

In a process of its own: in this one Triton may be interpreting.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitresnas.ops import OPS, dispatch

SCRIPT = Path(__file__).parents[2] / "bench" / "ahead_of_time.py"
REGISTERS = 168  # three blocks of four warps per multiprocessor


@pytest.fixture(scope="module")
def rows():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: run `pip install triton`")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


def test_every_op_with_triton_kernels_is_compiled_both_ways_in_both_dtypes(rows):
    expected = {
        (op, direction, dtype)
        for op in OPS
        if any(backend.name == "triton" for backend in dispatch.find(op).backends)
        for direction in ("forward", "backward")
        for dtype in ("fp32", "bf16")
    }
    assert {(row["op"], row["direction"], row["variant"]["dtype"]) for row in rows} == expected


def test_nothing_spills_and_occupancy_is_kept(rows):
    for row in rows:
        assert row["spill_bytes"] == 0 and row["spill_instructions"] == 0, row
        assert 16 <= row["registers"] <= REGISTERS, row


def test_rows_are_loaded_sixteen_bytes_at_a_time(rows):
    # A load masked by the exact, unaligned width would silently fall back to single elements.
    for row in rows:
        assert row["wide_load_instructions"] > 0, row
