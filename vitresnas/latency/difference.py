"""Where a table's machine and this one differ, field by field. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vitresnas.files import Fields, JsonObject, flattened
from vitresnas.latency.table import LatencyTable

_PACKAGES = ("vitresnas", "triton")  # beside those of a condition, what shapes the numbers

Value = str | int | None


@dataclass(frozen=True)
class Difference:
    """One field: the table's value and this machine's, None where the machine has none."""

    field: str
    table: Value
    here: Value

    def __str__(self) -> str:
        name = self.field.removeprefix("versions.")
        return f"{name} {_words(self.table)} there and {_words(self.here)} here"

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object, where: str) -> Difference:
        fields = Fields(value, where)
        found = cls(fields.text("field"), _value(fields, "table"), _value(fields, "here"))
        fields.done()
        return found


def differences(
    table: LatencyTable, here: Mapping[str, Any], packages: Mapping[str, str]
) -> tuple[Difference, ...]:
    """Every field of the table's machine that is otherwise here.

    here: `latency.request.machine` of this machine. packages: its `environment.versions`. What a
    table does not tell is not compared.
    """
    condition = table.condition
    noted = table.environment.get("versions")
    there = {name: getattr(condition, name) for name in here}
    ours, theirs = (
        flattened({**fields, "versions": {**_shaping(known), **dict(fields["versions"])}})
        for fields, known in ((here, packages), (there, noted))
    )
    return tuple(
        Difference(name, value, ours.get(name))
        for name, value in theirs.items()
        if ours.get(name) != value
    )


def in_words(found: Sequence[Difference]) -> str:
    """`driver 570 there and 580 here, torch 2.11 there and 2.12 here`."""
    return ", ".join(map(str, found))


def _shaping(versions: object) -> dict[str, str]:
    known = versions if isinstance(versions, Mapping) else {}
    return {name: known[name] for name in _PACKAGES if name in known}


def _words(value: Value) -> str:
    return "none" if value is None else str(value)


def _value(fields: Fields, name: str) -> Value:
    value = fields.take(name)
    if value is None or isinstance(value, str) or type(value) is int:
        return value
    raise fields.wrong(name, value, "text, a whole number or null")
