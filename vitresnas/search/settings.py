"""What makes two commands the same search, and the folder that holds one search only."""

from __future__ import annotations

from pathlib import Path

from vitresnas.errors import MismatchError
from vitresnas.files import JsonObject, read_json, write_json

KIND = "search_settings"
SETTINGS = "search_settings.json"


def check_folder(out: Path, settings: JsonObject) -> None:
    """Raise MismatchError where `out` holds a search that differs in one of these settings."""
    if not (out / SETTINGS).exists():
        return
    found = _flat(read_json(out / SETTINGS, KIND))
    for name, value in _flat(settings).items():
        if found.get(name) != value:
            raise MismatchError(
                f"{out} holds a search with {name} {found.get(name)!r}, this command's is "
                f"{value!r}: choose another --out, or repeat the command that began it"
            )


def claim_folder(out: Path, settings: JsonObject) -> None:
    """Write down what `out` searches, or check that it is this. Raises MismatchError."""
    check_folder(out, settings)
    if not (out / SETTINGS).exists():
        write_json(out / SETTINGS, KIND, settings)


def _flat(value: JsonObject, prefix: str = "") -> JsonObject:
    """{"a": {"b": 1}} -> {"a.b": 1}, so that a difference has one short name."""
    flat: JsonObject = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat.update(_flat(item, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = list(item) if isinstance(item, tuple) else item
    return flat
