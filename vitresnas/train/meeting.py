"""How the processes of a run find each other, also after torchrun has restarted them.

torchrun (PyTorch 2.15) keeps its store over restarts, with addresses of processes that are gone:
https://github.com/pytorch/pytorch/issues/135712 tells of it. So every attempt agrees on a name that
is new, and keeps what it stores under that name.
"""

from __future__ import annotations

import time
import uuid

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from vitresnas.errors import WorkerLost

_SECONDS_BETWEEN_LOOKS = 0.02
_PATIENCE_SECONDS = 1800.0  # as long as the others wait for an answer


def meet() -> tuple[Store, int, int]:
    """A store that holds nothing old, this process's rank, and the number of processes.

    Raises WorkerLost where some never come.
    """
    store, rank, size = next(rendezvous("env://"))
    attempt = _invite(store, size) if rank == 0 else _arrive(store, rank)
    return PrefixStore(attempt, store), rank, size


def _invite(store: Store, size: int, patience: float = _PATIENCE_SECONDS) -> str:
    """Answer whoever says hello until all have heard the name of this attempt."""
    attempt, deadline = uuid.uuid4().hex, time.monotonic() + patience
    while (heard := store.add(f"{attempt}/heard", 0)) < size - 1:
        if time.monotonic() > deadline:
            raise WorkerLost(
                f"{size - 1 - heard} of {size} processes did not connect within {patience:g} "
                "seconds: find out what ended them, and start all of them again"
            )
        for rank in range(1, size):
            if store.check([f"hello/{rank}"]):
                # It may be the hello of a process that is gone: nobody reads that answer.
                store.set(f"welcome/{store.get(f'hello/{rank}').decode()}", attempt)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return attempt


def _arrive(store: Store, rank: int) -> str:
    me = uuid.uuid4().hex
    store.set(f"hello/{rank}", me)
    attempt = store.get(f"welcome/{me}").decode()  # waits
    store.add(f"{attempt}/heard", 1)
    return attempt
