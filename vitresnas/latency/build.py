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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from vitresnas.errors import InputError
from vitresnas.files import JsonObject, storage_errors
from vitresnas.latency.anchor import Anchor, anchor_call
from vitresnas.latency.assemble import assemble, estimated_cost, operation_timings
from vitresnas.latency.bench import Bench
from vitresnas.latency.busy import Watch, busy_warning, load_average, other_cpus_now
from vitresnas.latency.calibration import features
from vitresnas.latency.compared import ExistingModel, misfit
from vitresnas.latency.condition import Condition
from vitresnas.latency.cores import threads
from vitresnas.latency.energy import Energy, fit_energy
from vitresnas.latency.existing import find_models
from vitresnas.latency.memory import MemoryCheck, peak_bytes
from vitresnas.latency.networks import (
    CALIBRATION_NETWORKS,
    NETWORKS_NEEDED,
    NetworkChoice,
    choose_networks,
)
from vitresnas.latency.partial import COMPARED, PartialLog
from vitresnas.latency.priority import NORMAL, measuring_priority
from vitresnas.latency.progress import Progress, default_progress
from vitresnas.latency.request import Request, resolve_condition, resolve_device
from vitresnas.latency.rounds import Plan, repeat, run_rounds, spoilt_visits
from vitresnas.latency.runtime import Call, find_runtime
from vitresnas.latency.shipped import find_tables
from vitresnas.latency.table import (
    LatencyTable,
    Transfer,
    load_tables,
    merge_tables,
    save_tables,
)
from vitresnas.latency.tail import measure_tail
from vitresnas.latency.telemetry import HOW, Recorder, measure_energy, nvml_of
from vitresnas.latency.timing import Timing
from vitresnas.latency.transfer import choose_pieces, choose_seed, reusable, transfer
from vitresnas.space.operations import Operation, operations
from vitresnas.space.search_space import SearchSpace

SEED = 0
_OPERATIONS_SHARE = 0.42  # of the time; the whole networks get the rest
_OPERATION_ROUNDS = (6, 24)
_NETWORK_ROUNDS = (5, 24)
_MEMORY_NETWORKS = 4  # besides the ends of the space
_PRECISION = 0.01  # interval of a price that needs no more rounds
_REPEAT_SHARE = 0.5  # of the time, for what drift has spoilt
_TAIL_SHARE = 0.1  # of the time, at batch 1
_WAIT_SHARE = 0.2  # of the time, for a disturbance to pass before that


def build_table(
    space: SearchSpace, request: Request, out: str | Path, *, progress: Progress | None = None
) -> LatencyTable:
    """Measure `space` as `request` says and write the table into `out`; returns it.

    Other conditions in `out` are kept, an earlier table of the same condition is replaced. Progress
    goes to `out`.partial.jsonl, from where a run that was interrupted continues; the log is removed
    once the table is written. Raises InputError, FileFormatError (an `out` that cannot be read is
    found before anything is measured; another process that measures there), StorageError.
    """
    out = Path(out)
    with _alone_in(out.absolute().parent):
        return _build(space, request, out, progress or default_progress())


def _build(space: SearchSpace, request: Request, out: Path, progress: Progress) -> LatencyTable:
    from vitresnas.latency.environment import describe_environment

    _earlier(out)
    run = _start(space, request, out, progress)
    watch, begin = Watch(), time.perf_counter()
    with _timing_conditions(run):
        with measuring_priority(run.condition.threads):
            run.anchor.warm_up()
            _reuse(run, request, _earlier(out))
        pieces = _prepare_operations(run)  # compilers and exporters get no priority
        with measuring_priority(run.condition.threads):
            operation_rounds = _time_operations(run, pieces)
        choice, networks = _prepare_networks(run)
        existing = run.bench.existing(run.models)
        with measuring_priority(run.condition.threads) as priority:
            network_rounds = _time_networks(run, networks, existing)
            _repeat_drifted(run, pieces, networks, existing)
            energy = _measure_energy(run, choice, networks)
            tail = _measure_tail(run, choice, networks)
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
        memory=_check_memory(run, choice),
        energy=energy,
        telemetry=run.recorder.to_json(),
        transfer=run.seed
        and Transfer(str(run.seed.condition), len(run.pieces), len(choice.calibration)),
    )
    # Read again: another condition may have been written while this one was measured.
    save_tables(out, merge_tables(_earlier(out), table))
    run.log.remove()
    if warning := run.recorder.warning():
        progress.say(warning)
    if table.drift and table.drift.stretches:
        progress.say(str(table.drift))
    if priority == NORMAL and (warning := busy_warning(other_cpus)):
        progress.say(f"{warning}; or run as root, which may ask for the CPUs")
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


def partial_path(out: Path) -> Path:
    """Where the measurements of an unfinished table are kept."""
    return out.with_name(out.name + ".partial.jsonl")


def _earlier(out: Path) -> tuple[LatencyTable, ...]:
    return load_tables(out) if out.exists() else ()


@dataclass
class _Run:
    """What one run of `build_table` works with."""

    space: SearchSpace
    condition: Condition
    bench: Bench
    log: PartialLog
    progress: Progress
    operation_plan: Plan
    network_plan: Plan
    anchor: Anchor
    recorder: Recorder
    resumed: bool
    pieces: tuple[Operation, ...]  # to measure: the others are reused, or estimated from the seed
    seed: LatencyTable | None
    reused: Mapping[Operation, Timing]
    models: tuple[ExistingModel, ...]

    def timings(self) -> Mapping[Operation, Timing]:
        """What the space's pieces took, by what is logged so far."""
        measured = operation_timings(self.log, self.pieces, self.bench.host_is_device)
        known, wanted = {**self.reused, **measured}, self.space.operations()
        return transfer(self.seed, known, wanted) if self.seed else {o: known[o] for o in wanted}

    def between(self) -> None:
        """What happens between two measurements."""
        self.anchor.occasion()
        self.recorder.occasion()


def _start(space: SearchSpace, request: Request, out: Path, progress: Progress) -> _Run:
    condition = resolve_condition(space, request)
    progress.say(f"{len(space.operations())} distinct operations; {condition}")
    if warning := busy_warning(other_cpus_now()):
        progress.say(warning)
    subject: JsonObject = {
        "condition": condition.to_json(),
        "seconds": request.seconds,
        "seed": SEED,
        "fresh": request.fresh,
    }
    pieces, seed = space.operations(), None
    if request.seed_from:
        seed = _seed(request, condition, pieces, out)
        pieces = choose_pieces(seed, pieces, request.measurements - CALIBRATION_NETWORKS)
        subject["transfer"] = [str(operation) for operation in pieces]
    models = find_models(request.compare)
    if models:
        subject["compare"] = [model.label for model in models]
    if notice := misfit(models, space.image_size, space.classes):
        progress.say(notice)
    log, message = PartialLog.open(partial_path(out), subject)
    if message:
        progress.say(message)
    device = torch.device(resolve_device(request.device))
    bench = Bench(space, condition, device)
    return _Run(
        space=space,
        condition=condition,
        bench=bench,
        anchor=Anchor(anchor_call(device), bench.time_anchor, log),
        recorder=Recorder(nvml_of(device)),
        pieces=pieces,
        seed=seed,
        reused={},
        models=models,
        log=log,
        progress=progress,
        operation_plan=Plan(*_OPERATION_ROUNDS, _OPERATIONS_SHARE * request.seconds, _PRECISION),
        network_plan=Plan(
            *_NETWORK_ROUNDS, (1.0 - _OPERATIONS_SHARE) * request.seconds, _PRECISION
        ),
        resumed=bool(log.visits),
    )


def _seed(
    request: Request, condition: Condition, wanted: tuple[Operation, ...], out: Path
) -> LatencyTable:
    """The table to estimate from; a full table is never replaced by an estimate."""
    assert request.seed_from is not None
    for table in _earlier(out):
        if table.condition.key == condition.key and not table.transfer:
            raise InputError(
                f"{out} holds this condition measured in full, which no transfer replaces: give "
                "another --out"
            )
    return choose_seed(find_tables(request.seed_from).tables, condition, wanted)


def _reuse(run: _Run, request: Request, tables: tuple[LatencyTable, ...]) -> None:
    """Leave out what another space, or an earlier run, measured on this machine as it is now."""
    if request.fresh or run.seed:
        return
    known = reusable(tables, run.condition, run.anchor.now()) if tables else {}
    run.reused = {piece: known[piece] for piece in run.pieces if piece in known}
    run.pieces = tuple(piece for piece in run.pieces if piece not in known)
    if run.reused:
        run.progress.say(
            f"{len(run.reused)} operations were measured under this condition before and are "
            "reused: --fresh measures them again"
        )


def _prepare_operations(run: _Run) -> dict[str, Call]:
    if notice := find_runtime(run.condition.runtime).notice:
        run.progress.say(notice)
    with run.progress.phase("preparing operations") as step:
        return run.bench.pieces(run.pieces, step)


def _time_operations(run: _Run, calls: Mapping[str, Call]) -> int:
    run.progress.say(_estimate(run, calls))
    with run.progress.phase("operations") as step:
        return run_rounds(
            "operation",
            calls,
            run.bench.time_piece,
            run.log,
            run.operation_plan,
            step,
            between=run.between,
        )


def _prepare_networks(run: _Run) -> tuple[NetworkChoice, dict[str, Call]]:
    """Networks are chosen by the times of their pieces, once: a resumed run keeps its choice."""
    choice = run.log.networks
    if choice is None:
        choice = choose_networks(run.space, estimated_cost(run.timings()), Random(SEED))
        run.log.choose(choice)
    with run.progress.phase("preparing networks") as step:
        return choice, run.bench.networks(choice.all, step)


def _time_networks(run: _Run, calls: Mapping[str, Call], existing: Mapping[str, Call]) -> int:
    with run.progress.phase("whole networks") as step:
        return run_rounds(
            "network",
            calls,
            run.bench.time_network,
            run.log,
            run.network_plan,
            step,
            beside=existing,
            between=run.between,
        )


def _repeat_drifted(
    run: _Run,
    pieces: Mapping[str, Call],
    networks: Mapping[str, Call],
    existing: Mapping[str, Call],
) -> None:
    """Measure again what was measured while the machine was not itself; the time is bounded."""
    phases = (
        ("operation", pieces, run.bench.time_piece),
        ("network", networks, run.bench.time_network),
        (COMPARED, existing, run.bench.time_network),
    )
    total = run.operation_plan.seconds + run.network_plan.seconds
    if not any(spoilt_visits(phase, run.log) for phase, _, _ in phases):
        return
    if not run.anchor.wait_until_quiet(_WAIT_SHARE * total):
        run.progress.say("the machine is still off its level: what drifted counts as it is")
        return
    for phase, calls, measure in phases:
        if count := spoilt_visits(phase, run.log):
            with run.progress.phase(f"{count} {phase} measurements again, after drift") as step:
                seconds = 0.5 * _REPEAT_SHARE * total  # existing models have theirs on top
                repeat(phase, calls, measure, run.log, seconds, step, between=run.between)


def _check_memory(run: _Run, choice: NetworkChoice) -> MemoryCheck:
    """Both ends of the space and a few networks between them, predicted and measured."""
    step = max(len(choice.validation) // _MEMORY_NETWORKS, 1)
    networks = (run.space.smallest, *choice.validation[::step], run.space.largest)
    condition = run.condition
    predicted = [peak_bytes(a, condition.batch_size, condition.dtype) for a in networks]
    measured, how = zip(*(run.bench.peak_memory(a) for a in networks), strict=True)
    ids = tuple(architecture.id for architecture in networks)
    return MemoryCheck(how[0], ids, tuple(predicted), measured)


def _measure_tail(run: _Run, choice: NetworkChoice, calls: Mapping[str, Call]) -> JsonObject | None:
    """p99 of the ends and the middle of the held-out networks, at batch 1."""
    if run.condition.batch_size != 1:
        return None
    ids = [choice.validation[index].id for index in (0, len(choice.validation) // 2, -1)]
    seconds = _TAIL_SHARE * (run.operation_plan.seconds + run.network_plan.seconds)
    tailed = {id_: calls[id_] for id_ in ids}
    return measure_tail(tailed, run.bench.time_network, seconds)


def _measure_energy(run: _Run, choice: NetworkChoice, calls: Mapping[str, Call]) -> Energy | None:
    """Energy of the calibration networks, where the device counts it."""
    if run.recorder.nvml is None:
        return None
    found = measure_energy(
        run.recorder.nvml,
        {network.id: calls[network.id] for network in choice.calibration},
        run.condition.batch_size,
        torch.cuda.synchronize,
    )
    if found is None:
        return None
    joules, idle = found
    timings = run.timings()
    rows = [
        features((piece, timings[piece]) for piece in operations(network))
        for network in choice.calibration
    ]
    return fit_energy(HOW, list(joules), rows, list(joules.values()), idle)


def _estimate(run: _Run, calls: Mapping[str, Call]) -> str:
    """How long all will take, from one call of each piece."""
    seconds = {name: run.bench.time_piece(call)[0] / 1000.0 for name, call in calls.items()}
    ends = (*operations(run.space.smallest), *operations(run.space.largest))
    elsewhere = {**dict(run.seed.entries if run.seed else ()), **run.reused}
    known = {str(one): timing.host.median / 1000.0 for one, timing in elsewhere.items()}
    one_network = sum({**known, **seconds}[str(operation)] for operation in ends) / 2.0
    total = run.operation_plan.expected_seconds(sum(seconds.values()))
    # Each visit of a network calls it twice.
    total += run.network_plan.expected_seconds(2.0 * NETWORKS_NEEDED * one_network)
    return (
        f"measuring them, then {NETWORKS_NEEDED} whole networks to calibrate and validate: "
        f"about {total:.0f} s"
        + (f", and {len(run.models)} existing models beside them" if run.models else "")
    )


@contextlib.contextmanager
def _timing_conditions(run: _Run) -> Iterator[None]:
    """The condition's threads, existing already so that priority reaches them, and no autograd."""
    with threads(run.condition.threads), torch.inference_mode():
        torch.randn(1 << 16).exp_()
        yield
