"""From a complete log of measurements to a table: timings, calibration, validation. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vitresnas.files import JsonObject
from vitresnas.latency.calibration import STATISTIC, features, fit
from vitresnas.latency.compared import Compared, ExistingModel
from vitresnas.latency.condition import Condition
from vitresnas.latency.drift import Drift, drifted
from vitresnas.latency.networks import Cost, NetworkChoice
from vitresnas.latency.partial import COMPARED, PHASES, PartialLog, Visit
from vitresnas.latency.rounds import REPEATS, kept, spoilt_visits
from vitresnas.latency.table import LatencyTable
from vitresnas.latency.timing import Timing
from vitresnas.latency.validation import Pair, Validation
from vitresnas.space.architecture import Architecture
from vitresnas.space.operations import Operation, operations

Timings = Mapping[Operation, Timing]


def operation_timings(
    log: PartialLog, pieces: Sequence[Operation], host_is_device: bool
) -> dict[Operation, Timing]:
    """What every piece took; the log must hold them all."""
    visits = kept("operation", log)
    return {piece: _timing(visits[str(piece)], host_is_device) for piece in pieces}


def drift_of(log: PartialLog) -> Drift:
    """What the anchor said about the run that this log holds."""
    first = [visit for visit in log.visits.values() if visit.round < REPEATS]
    repeated = len(log.visits) - len(first)
    spoilt = sum(spoilt_visits(phase, log) for phase in PHASES)
    return Drift(
        readings=tuple(log.readings),
        stretches=drifted(log.readings),
        measured=len(first),
        repeated=repeated,
        left=spoilt,
    )


def estimated_cost(timings: Timings) -> Cost:
    """The uncalibrated time of a network: host or device time of its pieces, the longer one."""
    return lambda architecture: features(_priced(architecture, timings))["max"]


def assemble(
    condition: Condition,
    timings: Timings,
    choice: NetworkChoice,
    log: PartialLog,
    circumstances: JsonObject,
    environment: JsonObject,
    *,
    models: Sequence[ExistingModel] = (),
    **parts: Any,
) -> LatencyTable:
    """Fit on the calibration networks, validate on the others.

    models: the existing ones that the log holds beside them. parts: what else a table holds.
    """
    visits, beside = kept("network", log), kept(COMPARED, log)
    measured = {network: _timing(visits[network.id], host_is_device=True) for network in choice.all}
    calibration = fit(
        [features(_priced(network, timings)) for network in choice.calibration],
        [_price(measured[network]) for network in choice.calibration],
    )

    def validate(networks: Sequence[Architecture]) -> Validation:
        return Validation(
            tuple(
                Pair(
                    architecture=network,
                    predicted=calibration.milliseconds(_priced(network, timings)),
                    measured=_price(measured[network]),
                    samples=measured[network].host_samples,
                )
                for network in networks
            )
        )

    return LatencyTable(
        condition=condition,
        entries=tuple(timings.items()),
        calibration=calibration,
        validation=validate(choice.validation),
        validation_uniform=validate(choice.uniform),
        circumstances=circumstances,
        environment=environment,
        calibration_networks=validate(choice.calibration),
        drift=drift_of(log),
        compared=tuple(
            Compared(
                model, condition.batch_size, tuple(visit.host for visit in beside[model.label])
            )
            for model in models
        ),
        **parts,
    )


def _priced(architecture: Architecture, timings: Timings) -> Iterator[tuple[Operation, Timing]]:
    return ((operation, timings[operation]) for operation in operations(architecture))


def _price(timing: Timing) -> float:
    price: float = getattr(timing.host, STATISTIC)
    return price


def _timing(visits: Sequence[Visit], host_is_device: bool) -> Timing:
    device = None if host_is_device else tuple(visit.device for visit in visits)
    return Timing(tuple(visit.host for visit in visits), device)
