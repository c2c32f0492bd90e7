"""The stages of a measurement, in the order in which they run; each goes on where its log ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from random import Random

import torch

from vitresnas.doors import say
from vitresnas.files import JsonObject
from vitresnas.latency.assemble import estimated_cost
from vitresnas.latency.calibration import features
from vitresnas.latency.cores import threads
from vitresnas.latency.energy import Energy, fit_energy
from vitresnas.latency.memory import MemoryCheck, peak_bytes
from vitresnas.latency.networks import NETWORKS_NEEDED, NetworkChoice, choose_networks
from vitresnas.latency.partial import COMPARED
from vitresnas.latency.rounds import repeat, run_rounds, spoilt_visits
from vitresnas.latency.runtime import Call, find_runtime
from vitresnas.latency.session import SEED, Session
from vitresnas.latency.tail import measure_tail
from vitresnas.latency.telemetry import HOW, measure_energy
from vitresnas.progress import Progress
from vitresnas.space.operations import operations

_MEMORY_NETWORKS = 4  # besides the ends of the space
_REPEAT_SHARE = 0.5  # of the time, for what drift has spoilt
_TAIL_SHARE = 0.1  # of the time, at batch 1
_ENERGY_SHARE = 0.2  # of the time, for the energy of all calibration networks
_WAIT_SHARE = 0.2  # of the time, for a disturbance to pass before that


@contextlib.contextmanager
def timing_conditions(run: Session) -> Iterator[None]:
    """The condition's threads, existing already so that priority reaches them, and no autograd."""
    with threads(run.condition.threads), torch.inference_mode():
        torch.randn(1 << 16).exp_()
        yield


def prepare_operations(run: Session) -> dict[str, Call]:
    if notice := find_runtime(run.condition.runtime).notice:
        say(notice)
    with Progress("preparing operations") as step:
        return run.bench.pieces(run.pieces, step)


def time_operations(run: Session, calls: Mapping[str, Call]) -> int:
    say(_estimate(run, calls))
    with Progress("operations") as step:
        return run_rounds(
            "operation",
            calls,
            run.bench.time_piece,
            run.log,
            run.operation_plan,
            step,
            between=run.between,
        )


def _estimate(run: Session, calls: Mapping[str, Call]) -> str:
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


def prepare_networks(run: Session) -> tuple[NetworkChoice, dict[str, Call]]:
    """Networks are chosen by the times of their pieces, once: a resumed run keeps its choice."""
    choice = run.log.networks
    if choice is None:
        choice = choose_networks(run.space, estimated_cost(run.timings()), Random(SEED))
        run.log.choose(choice)
    with Progress("preparing networks") as step:
        return choice, run.bench.networks(choice.all, step)


def time_networks(run: Session, calls: Mapping[str, Call], existing: Mapping[str, Call]) -> int:
    with Progress("whole networks") as step:
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


def repeat_drifted(
    run: Session,
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
        say("the machine is still off its level: what drifted counts as it is")
        return
    for phase, calls, measure in phases:
        if count := spoilt_visits(phase, run.log):
            with Progress(f"{count} {phase} measurements again, after drift") as step:
                seconds = 0.5 * _REPEAT_SHARE * total  # existing models have theirs on top
                repeat(phase, calls, measure, run.log, seconds, step, between=run.between)


def energy_of_calibration(
    run: Session, choice: NetworkChoice, calls: Mapping[str, Call]
) -> Energy | None:
    """Energy of the calibration networks, where the device counts it."""
    if run.recorder.nvml is None:
        return None
    found = measure_energy(
        run.recorder.nvml,
        {network.id: calls[network.id] for network in choice.calibration},
        run.condition.batch_size,
        partial(torch.cuda.synchronize, run.bench.device),
        seconds=_ENERGY_SHARE * (run.operation_plan.seconds + run.network_plan.seconds),
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


def tail_at_batch_1(
    run: Session, choice: NetworkChoice, calls: Mapping[str, Call]
) -> JsonObject | None:
    """p99 of the ends and the middle of the held-out networks, at batch 1."""
    if run.condition.batch_size != 1:
        return None
    ids = [choice.validation[index].id for index in (0, len(choice.validation) // 2, -1)]
    seconds = _TAIL_SHARE * (run.operation_plan.seconds + run.network_plan.seconds)
    tailed = {id_: calls[id_] for id_ in ids}
    return measure_tail(tailed, run.bench.time_network, seconds)


def check_memory(run: Session, choice: NetworkChoice) -> MemoryCheck:
    """Both ends of the space and a few networks between them, predicted and measured."""
    step = max(len(choice.validation) // _MEMORY_NETWORKS, 1)
    networks = (run.space.smallest, *choice.validation[::step], run.space.largest)
    condition = run.condition
    predicted = [peak_bytes(a, condition.batch_size, condition.dtype) for a in networks]
    measured, how = zip(*(run.bench.peak_memory(a) for a in networks), strict=True)
    ids = tuple(architecture.id for architecture in networks)
    return MemoryCheck(how[0], ids, tuple(predicted), measured)
