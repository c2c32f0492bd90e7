"""A measurement under way: everything it works with, made from the request and an earlier log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vitresnas.doors import say
from vitresnas.errors import InputError
from vitresnas.files import JsonObject
from vitresnas.latency.anchor import Anchor, anchor_call
from vitresnas.latency.assemble import operation_timings
from vitresnas.latency.bench import Bench
from vitresnas.latency.busy import busy_warning, other_cpus_now
from vitresnas.latency.compared import ExistingModel, misfit
from vitresnas.latency.condition import Condition
from vitresnas.latency.existing import find_models
from vitresnas.latency.networks import CALIBRATION_NETWORKS
from vitresnas.latency.partial import PartialLog
from vitresnas.latency.request import Request, resolve_condition, resolve_device
from vitresnas.latency.rounds import Plan
from vitresnas.latency.shipped import find_tables
from vitresnas.latency.table import LatencyTable, load_tables
from vitresnas.latency.telemetry import Recorder, nvml_of
from vitresnas.latency.timing import Timing
from vitresnas.latency.transfer import choose_pieces, choose_seed, reusable, transfer
from vitresnas.space.operations import Operation
from vitresnas.space.search_space import SearchSpace

SEED = 0
_OPERATIONS_SHARE = 0.42  # of the time; the whole networks get the rest
_OPERATION_ROUNDS = (6, 24)
_NETWORK_ROUNDS = (5, 24)
_PRECISION = 0.01  # interval of a price that needs no more rounds


@dataclass
class Session:
    """What one run of `build_table` works with; `reuse` may shorten its pieces."""

    space: SearchSpace
    condition: Condition
    bench: Bench
    log: PartialLog
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


def open_session(space: SearchSpace, request: Request, out: Path) -> Session:
    """What was asked for, on this machine; goes on where the log beside `out` ends."""
    condition = resolve_condition(space, request)
    say(f"{len(space.operations())} distinct operations; {condition}")
    if warning := busy_warning(other_cpus_now()):
        say(warning)
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
        say(notice)
    log, message = PartialLog.open(partial_path(out), subject)
    if message:
        say(message)
    device = torch.device(resolve_device(request.device))
    bench = Bench(space, condition, device)
    return Session(
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
    for table in earlier(out):
        if table.condition.key == condition.key and not table.transfer:
            raise InputError(
                f"{out} holds this condition measured in full, which a transfer never replaces: "
                "give another --out"
            )
    return choose_seed(find_tables(request.seed_from).tables, condition, wanted)


def reuse(run: Session, request: Request, tables: tuple[LatencyTable, ...]) -> None:
    """Leave out what another space, or an earlier run, measured on this machine as it is now."""
    if request.fresh or run.seed:
        return
    known = reusable(tables, run.condition, run.anchor.now()) if tables else {}
    run.reused = {piece: known[piece] for piece in run.pieces if piece in known}
    run.pieces = tuple(piece for piece in run.pieces if piece not in known)
    if run.reused:
        say(
            f"{len(run.reused)} operations were measured under this condition before and are "
            "reused: --fresh measures them again"
        )


def earlier(out: Path) -> tuple[LatencyTable, ...]:
    """The tables that `out` holds already. Raises FileFormatError."""
    return load_tables(out) if out.exists() else ()


def partial_path(out: Path) -> Path:
    """Where the measurements of an unfinished table are kept."""
    return out.with_name(out.name + ".partial.jsonl")
