"""Tables that lean on others: operations reused as they are, or a whole table seeded from another.

*Reuse*: the same operation under the same condition need not be measured for every space that has
it. *Transfer*: a new condition (batch 8 to 32, fp32 to bf16, the next GPU) is estimated from an old
one. The logarithm of new over old time is learned from a few operations of every kind measured
anew, by ridge regression on the old time, the work and the kind; whole networks measured anew then
calibrate and validate as always. No torch in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vitresnas.errors import InputError, MissingLatency
from vitresnas.latency.calibration import STATISTIC
from vitresnas.latency.condition import Condition
from vitresnas.latency.statistics import percentage_errors, ridge
from vitresnas.latency.table import LatencyTable
from vitresnas.latency.timing import Timing
from vitresnas.space.operations import OPERATION_KINDS, Operation

_SAME_LEVEL = 0.05  # of the anchor: further apart, the machine is another one now
_ALIKE = ("device", "dtype", "batch_size", "runtime", "backend", "threads")

Timings = Mapping[Operation, Timing]


def reusable(
    tables: Sequence[LatencyTable], condition: Condition, anchor_milliseconds: float
) -> dict[Operation, Timing]:
    """Operations measured before under this condition, by any space, at this speed of the machine.

    Tables that were transferred, have no anchor, or were made by other versions are left alone.
    """
    found: dict[Operation, Timing] = {}
    for table in tables:
        there = replace(
            table.condition,
            space=condition.space,
            space_id=condition.space_id,
            image_size=condition.image_size,
        )
        level = table.drift.level if table.drift else None
        if there == condition and not table.transfer and level:
            if abs(anchor_milliseconds / level - 1.0) <= _SAME_LEVEL:
                found.update(table.entries)
    return found


def choose_seed(
    tables: Sequence[LatencyTable], condition: Condition, wanted: Sequence[Operation]
) -> LatencyTable:
    """The most similar other condition that holds every operation. Raises MissingLatency."""
    others = [one for one in tables if one.condition.key != condition.key and not one.transfer]
    if not others:
        raise InputError(
            f"nothing to seed {condition} from: the file holds no other measured condition; "
            f"measure in full with `{condition.command()}`"
        )

    def likeness(table: LatencyTable) -> int:
        return sum(getattr(table.condition, n) == getattr(condition, n) for n in _ALIKE)

    best = max(others, key=lambda table: (not _missing(table, wanted), likeness(table)))
    if missing := _missing(best, wanted):
        raise MissingLatency(
            f"the table to seed from ({best.condition}) lacks {len(missing)} of {len(wanted)} "
            f"operations, the first {missing[0]}: add them with `{best.condition.command()}` for "
            "this space, or leave --seed-from out"
        )
    return best


def _missing(table: LatencyTable, wanted: Sequence[Operation]) -> list[Operation]:
    there = {operation for operation, _ in table.entries}
    return [operation for operation in wanted if operation not in there]


def choose_pieces(
    seed: LatencyTable, wanted: Sequence[Operation], count: int
) -> tuple[Operation, ...]:
    """Which operations to measure anew: of every kind the ends, then evenly by old time."""
    by_kind: dict[str, list[Operation]] = {}
    for operation in sorted(wanted, key=lambda one: _old(seed, one)):
        by_kind.setdefault(operation.kind, []).append(operation)
    shares = {kind: min(2, len(members)) for kind, members in by_kind.items()}
    while sum(shares.values()) < min(count, len(wanted)):
        # The kind with the most unmeasured members per measured one gets the next.
        kind = max(by_kind, key=lambda k: len(by_kind[k]) / shares[k] - 1.0)
        shares[kind] += 1
    chosen = []
    for kind, members in by_kind.items():
        for position in np.linspace(0, len(members) - 1, shares[kind]):
            chosen.append(members[round(float(position))])
    return tuple(dict.fromkeys(chosen))


def transfer(seed: LatencyTable, measured: Timings, wanted: Sequence[Operation]) -> Timings:
    """What `wanted` take under the new condition: measured where they were, else estimated."""
    host_is_device = all(timing.device_samples is None for timing in measured.values())
    known = list(measured)
    device = _estimate(seed, known, [measured[one].device for one in known], wanted, "device")
    host = device
    if not host_is_device:
        host = _estimate(seed, known, [measured[one].host for one in known], wanted, "host")
    return {
        one: measured.get(one) or Timing((h,), None if host_is_device else (d,))
        for one, h, d in zip(wanted, host, device, strict=True)
    }


def _estimate(
    seed: LatencyTable,
    known: Sequence[Operation],
    new: Sequence[object],
    wanted: Sequence[Operation],
    channel: str,
) -> list[float]:
    old = np.array([_old(seed, one, channel) for one in known])
    ratio = np.log(np.array([getattr(quantiles, STATISTIC) for quantiles in new]) / old)
    rows = np.array([_row(seed, one, channel) for one in known])
    center, spread = rows.mean(axis=0), rows.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    predict = ridge((rows - center) / spread, ratio)
    asked = (np.array([_row(seed, one, channel) for one in wanted]) - center) / spread
    # Never further from the old table than what was measured went, and half as far again.
    bound = np.abs(ratio).max() * 1.5
    factors = np.exp(np.clip(predict(asked), -bound, bound))
    return [
        round(float(factor) * _old(seed, one, channel), 6)
        for factor, one in zip(factors, wanted, strict=True)
    ]


def _row(seed: LatencyTable, operation: Operation, channel: str) -> list[float]:
    kinds = [float(operation.kind == kind) for kind in OPERATION_KINDS]
    return [np.log(_old(seed, operation, channel)), np.log(operation.macs + 1.0), *kinds]


def _old(seed: LatencyTable, operation: Operation, channel: str = "device") -> float:
    time: float = getattr(getattr(seed.timing(operation), channel), STATISTIC)
    return time


@dataclass(frozen=True)
class HeldOut:
    """A transferred table beside a full one of the same condition, on the full one's networks."""

    networks: int
    transferred_percent: float
    full_percent: float

    def __str__(self) -> str:
        return (
            f"beside the full table, on its {self.networks} held-out networks: error "
            f"{self.transferred_percent:.1f} % mean, the full table's own "
            f"{self.full_percent:.1f} %"
        )


def beside_full(table: LatencyTable, tables: Sequence[LatencyTable]) -> HeldOut | None:
    """None where no full table of the same condition is at hand."""
    for full in tables:
        if full.condition.key == table.condition.key and not full.transfer:
            pairs = full.validation.pairs
            errors = percentage_errors(
                [table.milliseconds(pair.architecture) for pair in pairs],
                [pair.measured for pair in pairs],
            )
            return HeldOut(
                len(pairs), float(np.mean(errors)), full.validation.mean_absolute_percentage_error
            )
    return None
