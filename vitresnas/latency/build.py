"""Build a table: time every piece, time a few whole networks, fit, validate, write. Resumable.

Pieces are visited in rounds of a shuffled order, two calls per visit of which the second counts:
whatever else the machine does falls on all of them alike. Calibration, validation and uniform
networks share their rounds for the same reason. Tried on 2 CPU cores and worse: counting the first
call (sum of the pieces 75 % too long at batch 1, 13 % either way at batch 32; leave-one-out error
of the affine model 3.4 % instead of 0.5 %), and running another piece before the one that counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from vitresnas.doors import say
from vitresnas.errors import InputError
from vitresnas.files import JsonObject, storage_errors
from vitresnas.latency import stages
from vitresnas.latency.assemble import assemble
from vitresnas.latency.busy import Watch, busy_warning, load_average
from vitresnas.latency.environment import describe_environment
from vitresnas.latency.priority import NORMAL, measuring_priority
from vitresnas.latency.request import Request
from vitresnas.latency.session import SEED, earlier, open_session, reuse
from vitresnas.latency.table import LatencyTable, Transfer, merge_tables, save_tables
from vitresnas.space.search_space import SearchSpace


def build_table(space: SearchSpace, request: Request, out: str | Path) -> LatencyTable:
    """Measure `space` as `request` says and write the table into `out`; returns it.

    Other conditions in `out` are kept, an earlier table of the same condition is replaced. Progress
    goes to `out`.partial.jsonl, from where a run that was interrupted continues; the log is removed
    once the table is written. Raises InputError, FileFormatError (an `out` that cannot be read is
    found before anything is measured; another process that measures there), StorageError.
    """
    out = Path(out)
    with _alone_in(out.absolute().parent):
        return _build(space, request, out)


def _build(space: SearchSpace, request: Request, out: Path) -> LatencyTable:
    earlier(out)
    run = open_session(space, request, out)
    watch, begin = Watch(), time.perf_counter()
    with stages.timing_conditions(run):
        with measuring_priority(run.condition.threads):
            run.anchor.warm_up()
            reuse(run, request, earlier(out))
        pieces = stages.prepare_operations(run)  # compilers and exporters get no priority
        with measuring_priority(run.condition.threads):
            operation_rounds = stages.time_operations(run, pieces)
        choice, networks = stages.prepare_networks(run)
        existing = run.bench.existing(run.models)
        with measuring_priority(run.condition.threads) as priority:
            network_rounds = stages.time_networks(run, networks, existing)
            stages.repeat_drifted(run, pieces, networks, existing)
            energy = stages.energy_of_calibration(run, choice, networks)
            tail = stages.tail_at_batch_1(run, choice, networks)
    other_cpus = watch.other_cpus()
    circumstances: JsonObject = {
        "seed": SEED,
        "seconds": round(time.perf_counter() - begin, 1),
        "resumed": run.resumed,
        "operation_rounds": operation_rounds,
        "network_rounds": network_rounds,
        "operations_reused": len(run.reused),
        "priority": priority,
        "other_processes_cpus": other_cpus,
        "load_average_1_minute": load_average(),
        "tail": tail,
    }
    table = assemble(
        run.condition,
        run.timings(),
        choice,
        run.log,
        circumstances,
        describe_environment(),
        models=run.models,
        memory=stages.check_memory(run, choice),
        energy=energy,
        telemetry=run.recorder.to_json(),
        transfer=run.seed
        and Transfer(str(run.seed.condition), len(run.pieces), len(choice.calibration)),
    )
    # Read again: another condition may have been written while this one was measured.
    save_tables(out, merge_tables(earlier(out), table))
    run.log.remove()
    if warning := run.recorder.warning():
        say(warning)
    if table.drift and table.drift.stretches:
        say(str(table.drift))
    if priority == NORMAL and (warning := busy_warning(other_cpus)):
        say(f"{warning}; or run as root, which may ask for the CPUs")
    return table


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Refuse to measure beside another process: it would mix logs and spoil both's times."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is measuring into {folder}: wait for it, two at once would "
                "spoil each other's times"
            ) from None
        yield
    finally:
        os.close(handle)
