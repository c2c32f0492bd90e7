"""Jobs on several processes that never outlive the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from vitresnas.doors import INTERRUPTED
from vitresnas.errors import WorkerLost

Job = TypeVar("Job")
Done = TypeVar("Done")


def spread(do: Callable[[Job], Done], jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """`do` of every job, as they finish; with one worker here and in order.

    Whatever ends the iteration early ends the workers, too.
    """
    if workers == 1 or len(jobs) <= 1:
        yield from map(do, jobs)
        return
    # A fork of a process whose threads hold locks may wait for ever; a fresh process cannot.
    context = multiprocessing.get_context("spawn")
    count, others = min(workers, len(jobs)), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent)
    try:
        for done in as_completed([pool.submit(do, job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool:
        raise WorkerLost(
            "a worker was killed (out of memory?): repeat the command, with fewer --workers if it "
            "happens again"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.kill()


def _end_with_parent() -> None:
    """In a worker: leave at once when the parent is killed, or on Ctrl-C, without a traceback."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
