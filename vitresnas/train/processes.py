"""processes.jsonl: the starts of a run, when, on what, from which commit."""

from __future__ import annotations

import functools
import shlex
import sys
from pathlib import Path

from vitresnas.files import append_line
from vitresnas.latency.environment import describe_environment

PROCESSES = "processes.jsonl"


@functools.cache  # going back to an earlier state is no new start
def note_process(out: Path) -> None:
    """Add a start of the run in `out`; called by the process that leads, and by no other."""
    record = {"command": shlex.join(sys.argv), "environment": describe_environment()}
    append_line(out / PROCESSES, record)
