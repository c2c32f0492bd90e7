"""The cores that this process may use, and the threads that torch computes with on them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def cores() -> int:
    """How many cores this process may use; a container or taskset may leave it fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with this many CPU threads per operation inside; the process gets its own back."""
    import torch  # late: whoever counts cores needs none

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
