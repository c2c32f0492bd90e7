"""What makes two commands the same search, and the folder that holds one search only."""

from __future__ import annotations

from pathlib import Path

from vitresnas.errors import MismatchError
from vitresnas.files import JsonObject, flattened, read_json, write_json

KIND = "search_settings"
SETTINGS = "search_settings.json"


def check_folder(out: Path, settings: JsonObject) -> None:
    """Raise MismatchError where `out` holds a search that differs in one of these settings."""
    if not (out / SETTINGS).exists():
        return
    found = flattened(read_json(out / SETTINGS, KIND))
    for name, value in flattened(settings).items():
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
        return
    theirs = flattened(read_json(out / SETTINGS, KIND))
    if more := sorted(theirs.keys() - flattened(settings).keys() - {"schema", "checksum"}):
        raise MismatchError(
            f"{out} holds a search with {', '.join(more)}, which this command does not ask for: "
            "choose another --out, or repeat the command that began it"
        )
