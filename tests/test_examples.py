"""The examples run as they are printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_an_own_scorer_searches_without_torch_and_repeats_itself_from_its_log(tmp_path):
    command = [sys.executable, str(EXAMPLES / "own_scorer.py"), str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "torch was not used" in first and "under 10 M MACs" in first
    log = (tmp_path / "evaluations.jsonl").read_bytes()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == first
    assert (tmp_path / "evaluations.jsonl").read_bytes() == log
