"""processes.jsonl: which processes trained a run, when, on what, from which commit."""

from __future__ import annotations

import functools
import shlex
import sys
from pathlib import Path

from vitresnas.files import append_line
from vitresnas.latency.environment import describe_environment

PROCESSES = "processes.jsonl"


@functools.cache  # a process that goes back to an earlier state is still the same one
def note_process(out: Path) -> None:
    """Add this process to those that trained the run in `out`."""
    record = {"command": shlex.join(sys.argv), "environment": describe_environment()}
    append_line(out / PROCESSES, record)
