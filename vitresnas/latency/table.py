"""LatencyTable: what every piece of a space costs under one condition, and so every network.

A file holds several conditions. A piece that is not there is an error, never a default: a made-up
time would win searches. Reading and pricing need no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from vitresnas.errors import FileFormatError, InputError, MismatchError, MissingLatency
from vitresnas.files import Fields, JsonObject, read_json, write_json
from vitresnas.latency.calibration import Calibration
from vitresnas.latency.compared import Compared
from vitresnas.latency.condition import Condition
from vitresnas.latency.drift import Drift
from vitresnas.latency.energy import Energy
from vitresnas.latency.memory import MemoryCheck, peak_bytes
from vitresnas.latency.timing import Timing
from vitresnas.latency.validation import Pair, Validation
from vitresnas.space.architecture import Architecture
from vitresnas.space.operations import Operation, operation_from_json, operations

KIND = "latency_table"
VERSION = 3

SINCE_VERSION_2 = ("calibration_networks", "drift", "memory", "energy", "telemetry", "transfer")

Entry = tuple[Operation, Timing]
Optional = TypeVar("Optional")


@dataclass(frozen=True)
class Transfer:
    """That a table was seeded from another: which one, and how much of it was measured itself."""

    source: str
    operations_measured: int
    networks_fitted: int

    def __str__(self) -> str:
        return (
            f"transferred from ({self.source}) by {self.operations_measured} operations and "
            f"{self.networks_fitted} whole networks; the other operations are estimates"
        )

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object, where: str) -> Transfer:
        reader = Fields(value, where)
        found = cls(
            reader.text("source"),
            reader.integer("operations_measured"),
            reader.integer("networks_fitted"),
        )
        reader.done()
        return found


@dataclass(frozen=True)
class LatencyTable:
    """One condition: its entries, the calibration over them, and the error that remains.

    `circumstances`: what the measurement itself was like (rounds, seconds, other processes' load).
    """

    condition: Condition
    entries: tuple[Entry, ...]
    calibration: Calibration
    validation: Validation
    validation_uniform: Validation
    circumstances: JsonObject = field(hash=False)
    environment: JsonObject = field(hash=False)
    calibration_networks: Validation | None = None
    drift: Drift | None = None
    memory: MemoryCheck | None = None
    energy: Energy | None = None
    telemetry: JsonObject | None = field(default=None, hash=False)
    transfer: Transfer | None = None
    compared: tuple[Compared, ...] = ()  # existing models, timed in the rounds of the networks

    def milliseconds(self, architecture: Architecture) -> float:
        """Predicted time of one batch. Raises MissingLatency for a piece that is not priced."""
        return self.calibration.milliseconds(
            (operation, self.timing(operation)) for operation in operations(architecture)
        )

    def images_per_second(self, architecture: Architecture) -> float:
        """Predicted throughput at the condition's batch size. Raises MissingLatency."""
        return 1000.0 * self.condition.batch_size / self.milliseconds(architecture)

    def peak_memory(self, architecture: Architecture) -> int:
        """Predicted bytes of a forward pass at the condition's batch size and number type."""
        return peak_bytes(architecture, self.condition.batch_size, self.condition.dtype)

    def joules_per_image(self, architecture: Architecture) -> float:
        """Raises InputError where no energy was measured, MissingLatency for a missing piece."""
        constant = self._energy.constant
        return constant + sum(self.joules_of(piece) for piece in operations(architecture))

    def joules_of(self, operation: Operation) -> float:
        """What one piece adds to the energy of an image."""
        time: float = getattr(self.timing(operation).device, self.calibration.statistic)
        return self._energy.per_millisecond * time

    @property
    def _energy(self) -> Energy:
        if self.energy is None:
            raise InputError(
                f"the latency table ({self.condition}) holds no energy, which needs a device whose "
                f"power NVML reports: measure there with `{self.condition.command()}`, or leave "
                "the bound out"
            )
        return self.energy

    def timing(self, operation: Operation) -> Timing:
        """Raises MissingLatency naming the piece and the command that adds it."""
        try:
            return self._by_operation[operation]
        except KeyError:
            raise MissingLatency(
                f"the latency table ({self.condition}) does not hold {operation}: measure a space "
                f"that has it with `{self.condition.command(space='SPACE.json')}`"
            ) from None

    @property
    def whole_networks(self) -> tuple[Pair, ...]:
        """Every network that was measured whole, whatever for; tables of version 1 keep fewer."""
        calibration = self.calibration_networks.pairs if self.calibration_networks else ()
        return (*calibration, *self.validation.pairs, *self.validation_uniform.pairs)

    @cached_property
    def _by_operation(self) -> dict[Operation, Timing]:
        return dict(self.entries)

    def to_json(self) -> JsonObject:
        return {
            **self.condition.to_json(),
            "entries": [
                {"operation": operation.to_json(), **timing.to_json()}
                for operation, timing in self.entries
            ],
            "calibration": self.calibration.to_json(),
            "validation": self.validation.to_json(),
            "validation_uniform": self.validation_uniform.to_json(),
            "circumstances": self.circumstances,
            "environment": self.environment,
            "calibration_networks": self.calibration_networks
            and self.calibration_networks.to_json(),
            "drift": self.drift and self.drift.to_json(),
            "memory": self.memory and self.memory.to_json(),
            "energy": self.energy and self.energy.to_json(),
            "telemetry": self.telemetry,
            "transfer": self.transfer and self.transfer.to_json(),
            "compared": [model.to_json() for model in self.compared],
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> LatencyTable:
        reader = Fields(value, where)
        table = cls(
            condition=Condition.take(reader, where),
            entries=reader.items("entries", _entry_from_json),
            calibration=Calibration.from_json(reader.take("calibration"), f"{where}, calibration"),
            validation=Validation.from_json(reader.take("validation"), f"{where}, validation"),
            validation_uniform=Validation.from_json(
                reader.take("validation_uniform"), f"{where}, validation_uniform"
            ),
            circumstances=_free_object(reader, "circumstances"),
            environment=_free_object(reader, "environment"),
            calibration_networks=_optional(
                reader, "calibration_networks", Validation.from_json, where
            ),
            drift=_optional(reader, "drift", Drift.from_json, where),
            memory=_optional(reader, "memory", MemoryCheck.from_json, where),
            energy=_optional(reader, "energy", Energy.from_json, where),
            telemetry=_optional(reader, "telemetry", _looks, where),
            transfer=_optional(reader, "transfer", Transfer.from_json, where),
            compared=reader.items("compared", Compared.from_json),
        )
        reader.done()
        if len(table._by_operation) != len(table.entries):
            raise FileFormatError(f"{where}: an operation is listed twice: measure it again")
        return table


def load_tables(path: str | Path) -> tuple[LatencyTable, ...]:
    """Every condition of a file. Raises InputError or FileFormatError."""
    reader = Fields(read_json(path, KIND, VERSION, _UPGRADES), str(path))
    tables = reader.items("conditions", LatencyTable.from_json)
    reader.done()
    if not tables:
        raise FileFormatError(f"{path} has no conditions: measure one with bench/latency_table.py")
    _refuse_twins(tables, str(path))
    return tables


def save_tables(path: str | Path, tables: Sequence[LatencyTable]) -> None:
    """Write every condition, validated first; what stood at `path` is replaced in one step."""
    _refuse_twins(tables, str(path))
    conditions = [table.to_json() for table in tables]
    for index, condition in enumerate(conditions):
        if LatencyTable.from_json(condition, f"condition {index}") != tables[index]:
            raise ValueError(f"condition {index} does not read back as it was written")
    write_json(path, KIND, {"conditions": conditions}, VERSION)


def merge_tables(tables: Sequence[LatencyTable], new: LatencyTable) -> tuple[LatencyTable, ...]:
    """`new` in place of the table of the same condition, or after the others."""
    kept = [table for table in tables if table.condition.key != new.condition.key]
    return (*kept, new)


def select_table(
    tables: Sequence[LatencyTable],
    *,
    batch_size: int | None = None,
    dtype: str | None = None,
    runtime: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    space_id: str | None = None,
    where: str = "the latency table",
) -> LatencyTable:
    """The one condition that matches; None asks nothing of a field.

    Of conditions that differ in their runtime alone eager is taken, as where tables are made.
    `device` is a name as in `Condition.device`. Raises MismatchError, listing what is there and the
    command that adds what was asked for, when no condition matches or several do.
    """
    wanted: dict[str, Any] = {
        "space_id": space_id,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "runtime": runtime,
        "threads": threads,
    }
    fields = [name for name in wanted if name != "runtime"]
    wanted = {name: value for name, value in wanted.items() if value is not None}
    matching = [
        table
        for table in tables
        if all(getattr(table.condition, name) == value for name, value in wanted.items())
    ]
    others = {tuple(getattr(table.condition, name) for name in fields) for table in matching}
    eager = [table for table in matching if table.condition.runtime == "eager"]
    for found in (matching, eager if len(others) == 1 else []):
        if len(found) == 1:
            return found[0]
    asked = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in wanted.items())
    there = "; ".join(_describe(table.condition) for table in matching or tables)
    if matching:
        raise MismatchError(
            f"{where} holds {len(matching)} conditions for {asked or 'any request'} ({there}): "
            "say which, with --batch-size, --dtype, --runtime or --threads"
        )
    raise MismatchError(
        f"{where} has no condition with {asked}; it holds: {there}. "
        "Measure what you need, on the device that you need it for, with "
        f"`{_command(wanted, where)}`; conditions already in the file are kept"
    )


def _describe(condition: Condition) -> str:
    return f"{condition} (space id {condition.space_id})"


def _command(wanted: dict[str, Any], where: str) -> str:
    options = [
        f"--{name.replace('_', '-')} {wanted[name]}"
        for name in ("batch_size", "dtype", "runtime", "threads")
        if name in wanted
    ]
    out = where if where.endswith(".json") else "FILE"
    return " ".join(("python bench/latency_table.py --space SPACE", *options, f"--out {out}"))


def _refuse_twins(tables: Sequence[LatencyTable], where: str) -> None:
    keys = [table.condition.key for table in tables]
    for table in tables:
        if keys.count(table.condition.key) > 1:
            raise FileFormatError(f"{where} holds the same condition twice: {table.condition}")


def _entry_from_json(value: object, where: str) -> Entry:
    reader = Fields(value, where)
    operation = operation_from_json(reader.take("operation"), f"{where}, operation")
    timing = Timing.take(reader, where)
    reader.done()
    return operation, timing


def _from_version_1(document: JsonObject) -> JsonObject:
    """Version 1 knew nothing of what version 2 may hold; nothing else changed."""
    for condition in _conditions(document):
        condition.update(dict.fromkeys(SINCE_VERSION_2))
    return document


def _from_version_2(document: JsonObject) -> JsonObject:
    """Before version 3 no existing models were timed."""
    for condition in _conditions(document):
        condition["compared"] = []
    return document


def _conditions(document: JsonObject) -> list[JsonObject]:
    """What looks like a condition; the rest is complained about when it is read."""
    found = document.get("conditions")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


_UPGRADES = {1: _from_version_1, 2: _from_version_2}


def _optional(
    reader: Fields, name: str, parse: Callable[[object, str], Optional], where: str
) -> Optional | None:
    """A part that only some tables have; null where it was not measured."""
    value = reader.take(name, default=None)
    return None if value is None else parse(value, f"{where}, {name}")


def _looks(value: object, where: str) -> JsonObject:
    """What NVML said is kept as it came: names differ from driver to driver."""
    reader = Fields(value, where)
    found = {"looks": list(reader.items("looks", lambda item, _: item))}
    reader.done()
    return found


def _free_object(reader: Fields, name: str) -> JsonObject:
    value = reader.take(name)
    if not isinstance(value, dict):
        raise reader.wrong(name, value, "an object with named fields")
    return value
