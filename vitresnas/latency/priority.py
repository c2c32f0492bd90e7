"""Ask the system for the CPUs while something is timed, and give them back.

Two threads of one forward pass meet at hundreds of barriers. On a machine whose cores are shared,
each meeting can wait for somebody else's time slice: on 2 cores with a load of 6, a network of 7 ms
took between 32 ms and 2 s, and with real-time priority 6.5 ms in the median. So the timed stretch
runs under SCHED_RR at its lowest level where the system grants it (root, or an rtprio limit); Linux
keeps a few percent for everybody else. It is a property of the threads: nothing is left behind by
a process that dies. Where it is refused, times are taken as they come; `doors.spin_briefly` then
keeps them from getting far worse than the machine's load.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from vitresnas.latency.cores import cores

REAL_TIME = "real-time"
NORMAL = "normal"

_TASKS = Path("/proc/self/task")


@contextlib.contextmanager
def measuring_priority(threads: int) -> Iterator[str]:
    """Raise this process's threads for the block; hands out `real-time`, or `normal` if refused."""
    if threads > cores() or not _raise():
        yield NORMAL
        return
    try:
        yield REAL_TIME
    finally:
        _lower()


def _raise() -> bool:
    if not hasattr(os, "sched_setscheduler") or not _TASKS.is_dir():
        return False  # not Linux
    # Somebody who chose a policy already (chrt) keeps it.
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    try:
        _set(os.SCHED_RR, os.sched_get_priority_min(os.SCHED_RR))
    except OSError:
        _lower()
        return False
    return True


def _lower() -> None:
    with contextlib.suppress(OSError):
        _set(os.SCHED_OTHER, 0)


def _set(policy: int, priority: int) -> None:
    for task in _TASKS.iterdir():
        # A thread may end between being listed and being set.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(task.name), policy, os.sched_param(priority))
