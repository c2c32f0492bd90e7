"""vitresnas cache: what searches keep for the next ones, and how to be rid of it.

Entries live in `$XDG_CACHE_HOME/vitresnas/<digest>/` (default ~/.cache), one folder each, named by
the digest of everything that shaped them. Deleting any of them costs time, never results.

    vitresnas cache --clear
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import StorageError, VitresnasError
from vitresnas.files import Fields, digest, read_json, storage_errors, write_json

KIND = "cache_entry"
_ENTRY, _LOCK = "entry.json", ".lock"


@dataclass(frozen=True)
class Entry:
    """One folder of the cache: `what` in a few words, and its size and age."""

    path: Path
    what: str
    bytes: int
    age_seconds: float


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/vitresnas`, or `~/.cache/vitresnas`; it need not exist."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    base = Path(root) if root and Path(root).is_absolute() else Path.home() / ".cache"
    return base / "vitresnas"


def entry_folder(what: str, shaped_by: Mapping[str, Any], *, make: bool = True) -> Path:
    """The folder of what is wholly determined by `shaped_by`; made, and described, if missing."""
    folder = cache_folder() / digest({"what": what, **shaped_by})[:16]
    if make and not (folder / _ENTRY).exists():
        write_json(folder / _ENTRY, KIND, {"what": what, "shaped_by": dict(shaped_by)})
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder while it is being written: a second process waits instead of corrupting it.

    The lock dies with its process, whatever ends it.
    """
    with storage_errors(folder):
        file = (folder / _LOCK).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is using {folder}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def entries() -> tuple[Entry, ...]:
    """Every entry, newest first; folders that we did not make are not listed."""
    folder = cache_folder()
    if not folder.is_dir():
        return ()
    found = []
    for path in folder.iterdir():
        # A link could lead anywhere, and clearing follows this list.
        if path.is_symlink() or not (path / _ENTRY).is_file():
            continue
        files = []
        for file in path.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a process at work in it may remove files
                files.append(file.lstat())
        files = [file for file in files if stat.S_ISREG(file.st_mode)]
        newest = max((file.st_mtime for file in files), default=0.0)
        size = sum(file.st_size for file in files)
        found.append(Entry(path, _describe(path), size, max(time.time() - newest, 0.0)))
    return tuple(sorted(found, key=lambda entry: entry.age_seconds))


def clear() -> tuple[Entry, ...]:
    """Remove every entry that no process is making, and nothing else; returns what was removed.

    Raises StorageError.
    """
    removed = []
    for entry in entries():
        if _in_use(entry.path):
            say(f"kept {entry.path}: another process is using it")
            continue
        try:
            shutil.rmtree(entry.path)
        except OSError as error:
            raise StorageError(
                f"cannot remove {entry.path} ({error.strerror}): remove it by hand"
            ) from error
        removed.append(entry)
    return tuple(removed)


def _in_use(folder: Path) -> bool:
    if not (folder / _LOCK).exists():
        return False
    with (folder / _LOCK).open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _describe(path: Path) -> str:
    try:
        fields = Fields(read_json(path / _ENTRY, KIND), str(path / _ENTRY))
        return fields.text("what")
    except VitresnasError:
        return "unreadable"  # still listed, so that it can be cleared


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas cache",
        description="List what searches keep for later ones, or clear it.",
        example="vitresnas cache --clear",
    )
    parser.add_argument("--clear", action="store_true", help="remove every entry")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    arguments = parser.parse_args(argv)
    found = clear() if arguments.clear else entries()
    total = sum(entry.bytes for entry in found)
    if arguments.json:
        listed = [
            {
                "path": str(entry.path),
                "what": entry.what,
                "bytes": entry.bytes,
                "age_seconds": round(entry.age_seconds),
            }
            for entry in found
        ]
        print_json(
            {
                "folder": str(cache_folder()),
                "cleared": arguments.clear,
                "bytes": total,
                "entries": listed,
            }
        )
        return 0
    for entry in found:
        print(f"{_size(entry.bytes):>9}  {_age(entry.age_seconds):>9}  {entry.what}  {entry.path}")
    verb = "removed" if arguments.clear else "kept"
    print(f"{len(found)} entries, {_size(total)} {verb} in {cache_folder()}")
    return 0


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
