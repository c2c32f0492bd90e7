"""What torch says when a process, a reader of images or memory is gone, in one sentence each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist

from vitresnas.errors import InputError, VitresnasError, WorkerLost

_GO_ON = "the same command, or torchrun --max-restarts, resumes from the last checkpoint"
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate")
_NO_SHARED_MEMORY = ("shared memory", "(shm)", "</torch_")


@contextlib.contextmanager
def failures_named() -> Iterator[None]:
    """Raises, inside, WorkerLost where another process is gone, InputError where memory is."""
    try:
        yield
    except RuntimeError as error:
        named = _named(error)
        if named is None:
            raise
        raise named from None


def _named(error: RuntimeError) -> VitresnasError | None:
    text = str(error).strip()
    lines = text.splitlines() or [""]
    reads = "DataLoader worker" in lines[0]
    if reads and any(sign in lines[0] + lines[-1] for sign in _NO_SHARED_MEMORY):
        return WorkerLost(
            f"the processes that read images have no shared memory left ({lines[-1][:200]}): give "
            f"fewer --workers, or enlarge /dev/shm; {_GO_ON}"
        )
    if reads and not lines[0].startswith("Caught "):  # else: what went wrong in one that lives
        return WorkerLost(
            f"a process that reads images is gone ({lines[0]}): give fewer --workers if memory is "
            f"short; {_GO_ON}"
        )
    if isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in _NO_MEMORY):
        return InputError(
            f"not enough memory ({lines[0][:200]}): give a smaller --batch-size, or split each "
            "batch into turns (--accumulation), with another --out"
        )
    if "RANK" in os.environ and _is_of_a_connection(error, text):
        return WorkerLost(
            f"process {os.environ['RANK']} lost contact with another process of this run "
            f"({lines[0][:200]}): find out what ended that one; {_GO_ON}"
        )
    return None


def _is_of_a_connection(error: RuntimeError, text: str) -> bool:
    return isinstance(error, dist.DistError) or "by peer" in text or "gloo" in text.lower()
