"""How much of this machine other processes use while something is measured (known on Linux)."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

_LOOKS = 5
BUSY_CPUS = 0.25  # more than this many CPUs' worth of foreign work deserves a warning


class Watch:
    """CPU time of everybody minus our own, since the watch was made or last read."""

    def __init__(self) -> None:
        self._last = self._now()

    def other_cpus(self) -> float | None:
        """CPUs kept busy by others on average; None where the system does not tell."""
        before, self._last = self._last, self._now()
        elapsed = self._last[0] - before[0]
        if before[1] is None or self._last[1] is None or elapsed <= 0.0:
            return None
        others = (self._last[1] - before[1]) - (self._last[2] - before[2])
        return max(round(others / elapsed, 2), 0.0)

    def _now(self) -> tuple[float, float | None, float]:
        own = os.times()
        return time.perf_counter(), _busy_seconds(), own.user + own.system


def other_cpus_now(seconds: float = 0.4) -> float | None:
    """CPUs kept busy by others during the next moments."""
    watch = Watch()
    time.sleep(seconds)
    return watch.other_cpus()


def busy_warning(other_cpus: float | None) -> str | None:
    """A loud sentence for a machine that is not quiet, None for one that is."""
    if other_cpus is None or other_cpus <= BUSY_CPUS:
        return None
    return (
        f"WARNING: other processes keep {other_cpus:.1f} of {os.cpu_count()} CPUs busy; times come "
        "out longer and less certain: measure on a quiet machine for numbers to keep"
    )


def load_average() -> float | None:
    """Of the last minute, ours included."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def waiting_processes() -> int | None:
    """Threads of others that run or want to, at this moment; None where the system is silent.

    Under real-time priority they are kept waiting, so their CPU time alone would not show them.
    """
    waiting = None
    for _ in range(_LOOKS):
        own, running = _own_running(), _running()
        if running is None:
            return None
        waiting = max(running - own, 0)
        if own == _own_running():  # no pool of ours went to sleep between the two looks
            break
    return waiting


def _running() -> int | None:
    try:
        text = Path("/proc/stat").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^procs_running (\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def _own_running() -> int:
    """Threads of this process that run: the one that asks, and pools that spin after their work."""
    running = 0
    tasks = Path("/proc/self/task")
    for thread in tasks.iterdir() if tasks.is_dir() else ():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # "PID (NAME) STATE ...", and a name may hold anything.
            state = (thread / "stat").read_text(encoding="utf-8", errors="replace")
            running += state.rpartition(")")[2].split()[0] == "R"
    return running


def _busy_seconds() -> float | None:
    """Time all CPUs spent on work, or lost to other guests of the same host, since boot."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")
