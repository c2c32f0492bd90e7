"""JSON in and out: a schema line, a checksum, helpful errors, and writes that cannot be half done.

A document is one JSON object that begins with `"schema": "vitresnas/<kind>/<version>"`; its other
keys are sorted, and `checksum` is the SHA-256 of everything else. Callers validate fields with
`Fields`, which names the file and the field in every complaint.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from vitresnas.errors import FileFormatError, InputError, StorageError

JsonObject = dict[str, Any]
Upgrade = Callable[[JsonObject], JsonObject]
NO_UPGRADES: Mapping[int, Upgrade] = {}

_BLOCK = 1 << 16  # bytes read at a time from the end of a log
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into one sentence naming `path`."""
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number in _DISK_FULL:
            raise StorageError(
                f"no space left to write {path}: free some space or choose another folder, "
                "then run the same command again; earlier results are untouched"
            ) from error
        if number in _NOT_WRITABLE:
            raise StorageError(
                f"cannot write {path} ({os.strerror(number)}): choose a folder you may write to"
            ) from error
        raise


def _error_number(error: Exception) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    # safetensors' writer has an exception of its own and the number in its text.
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else 0


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace `path` by `content` in one step: a reader sees the old file or the new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Hand out a temporary path beside `path`; on success it becomes `path`, else it is removed.

    Raises StorageError where the disk is full; what stood at `path` before is then untouched.
    """
    target = Path(path)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            # mkstemp makes private files; what we leave behind follows the user's umask.
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


class Lines:
    """A log of JSON lines under its lock: nobody else reads or writes it meanwhile."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path, self._file = path, file

    def read(self, start: int = 0) -> tuple[list[JsonObject], int]:
        """The records from byte `start` on, and the byte where the next one will begin.

        Raises FileFormatError for a broken line.
        """
        self._file.seek(start)
        content = self._file.readall()
        whole = content[: content.rfind(b"\n") + 1]
        records = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                place = f"line {number} of {self._path}" + (f" after byte {start}" if start else "")
                raise FileFormatError(
                    f"{place} is not JSON ({error}): remove the file to start afresh"
                ) from error
        return records, start + len(whole)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line and flush it to the disk; what a full disk cut short is taken back."""
        rest = (json.dumps(record, sort_keys=True, allow_nan=False) + "\n").encode()
        size = self._file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self._path, size)
            raise

    def heal(self) -> None:
        """Remove a last line that the crash of its writer cut short."""
        end = size = self._file.seek(0, os.SEEK_END)
        block = b""
        while end and b"\n" not in block:
            begin = max(end - _BLOCK, 0)
            self._file.seek(begin)
            block, end = self._file.read(end - begin), begin
        whole = end + block.rfind(b"\n") + 1
        if whole < size:
            os.truncate(self._path, whole)


@contextlib.contextmanager
def open_lines(path: str | os.PathLike[str]) -> Iterator[Lines]:
    """Hold a log of JSON lines, made if missing; a second process waits. A last line that was cut
    short by a crash is removed first. The lock dies with its process, whatever ends it."""
    target = Path(path)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk refused must not be written again when the file is closed.
        with target.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            lines = Lines(target, file)
            lines.heal()
            yield lines


def append_line(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Append one JSON object as one line and flush it to the disk, alone among processes."""
    with open_lines(path) as lines:
        lines.append(record)


def read_lines(path: str | os.PathLike[str]) -> list[JsonObject]:
    """Read a log of JSON lines; a last line that was cut short by a crash is ignored.

    Raises FileFormatError for a broken line anywhere else.
    """
    target = Path(path)
    if not target.exists():
        return []
    with target.open("rb", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # no half of a line that is being written
        return Lines(target, file).read()[0]


def flattened(value: JsonObject, prefix: str = "") -> JsonObject:
    """{"a": {"b": 1}} -> {"a.b": 1}, tuples as JSON has them: every difference has a short name."""
    flat: JsonObject = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat.update(flattened(item, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = list(item) if isinstance(item, tuple) else item
    return flat


def digest(value: object) -> str:
    """The SHA-256 of a JSON value in canonical form, as hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_text(kind: str, payload: Mapping[str, Any], version: int = 1) -> str:
    """The document of `payload` as text: schema first, other keys sorted, checksum included."""
    for reserved in ("schema", "checksum"):
        if reserved in payload:
            raise ValueError(f"{reserved!r} is written by vitresnas.files, not by its callers")
    body = dict(payload)
    body["checksum"] = digest({"schema": _schema(kind, version), **payload})
    # Sort at every depth, then put the schema line on top.
    ordered = json.loads(json.dumps(body, sort_keys=True, allow_nan=False))
    return json.dumps({"schema": _schema(kind, version), **ordered}, indent=1) + "\n"


def write_json(
    path: str | os.PathLike[str], kind: str, payload: Mapping[str, Any], version: int = 1
) -> None:
    """Write `payload` as a `kind` document, atomically."""
    atomic_write(path, to_text(kind, payload, version).encode())


def read_json(
    path: str | os.PathLike[str],
    kind: str,
    version: int = 1,
    upgrades: Mapping[int, Upgrade] = NO_UPGRADES,
) -> JsonObject:
    """Read a `kind` document; schema and checksum are verified and taken off.

    `upgrades[n]` makes a document of version n one of n + 1. Files written by hand may leave the
    checksum out. Raises FileFormatError or InputError.
    """
    target = Path(path)
    try:
        text = target.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no file {target}: check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"cannot read {target} ({error}): expected a JSON file") from error
    return from_text(text, kind, version, upgrades, where=str(target))


def from_text(
    text: str,
    kind: str,
    version: int = 1,
    upgrades: Mapping[int, Upgrade] = NO_UPGRADES,
    *,
    where: str = "the text",
) -> JsonObject:
    """Parse a `kind` document from text; see `read_json`."""
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{where} is not JSON ({error}): write it again") from error
    if not isinstance(document, dict):
        raise FileFormatError(
            f"{where} holds a JSON {type(document).__name__}, expected an object with a schema"
        )
    found = document.pop("schema", None)
    readable = {_schema(kind, number): number for number in (*upgrades, version)}
    if not isinstance(found, str) or found not in readable:
        raise FileFormatError(
            f'{where} has schema {found!r}, expected "{_schema(kind, version)}": '
            f"give a {kind} file, or add that schema line to one written by hand"
        )
    checksum = document.pop("checksum", None)
    if checksum is not None and checksum != digest({"schema": found, **document}):
        raise FileFormatError(
            f"{where} was changed after it was written (its checksum does not match): "
            'create it again, or remove its "checksum" line if you changed it on purpose'
        )
    for older in range(readable[found], version):
        document = upgrades[older](document)
    return document


def kind_of(path: str | os.PathLike[str]) -> str:
    """The kind that a file of ours says it is; it is not otherwise checked. Raises InputError."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))["schema"].split("/")
        if len(found) == 3 and found[0] == "vitresnas":
            return str(found[1])
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: check the name") from None
    except ValueError as error:
        raise FileFormatError(
            f"{path} is not JSON ({error}): it was cut short, or is something else; create it again"
        ) from error
    except (KeyError, TypeError, AttributeError, OSError):
        pass
    raise FileFormatError(
        f'{path} does not begin with a "vitresnas/..." schema: it is not a vitresnas file'
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _schema(kind: str, version: int) -> str:
    return f"vitresnas/{kind}/{version}"


class Fields:
    """Typed access to a JSON object that complains with the place, the field and its value.

    `done()` refuses fields that nobody asked for, so a misspelled name is found at once.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise FileFormatError(f"{where} is {value!r}, expected an object with named fields")
        self._value: JsonObject = value
        self._where = where
        self._seen: set[str] = set()

    def take(self, name: str, *, default: Any = ...) -> Any:
        """The raw value of a field; without a default the field must be there."""
        self._seen.add(name)
        if name in self._value:
            return self._value[name]
        if default is ...:
            raise FileFormatError(f'{self._where} lacks the field "{name}": add it')
        return default

    def integer(self, name: str, *, minimum: int = 1, default: Any = ...) -> int:
        value = self.take(name, default=default)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.wrong(name, value, f"a whole number of at least {minimum}")
        return value

    def number(self, name: str, *, minimum: float = -math.inf, default: Any = ...) -> float:
        value = self.take(name, default=default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, value, "a number")
        # Not a number is not at least anything; whole numbers may be too large for a float.
        if not minimum <= value <= sys.float_info.max:
            bound = f"of at least {minimum}" if minimum > -math.inf else "that is finite"
            raise self.wrong(name, value, f"a number {bound}")
        return float(value)

    def text(self, name: str, *, choices: tuple[str, ...] = (), default: Any = ...) -> str:
        value = self.take(name, default=default)
        if not isinstance(value, str) or (choices and value not in choices):
            raise self.wrong(name, value, f"one of {', '.join(choices)}" if choices else "text")
        return value

    def integers(self, name: str, *, minimum: int = 1, default: Any = ...) -> tuple[int, ...]:
        value = self.take(name, default=default)
        right = isinstance(value, (list, tuple)) and all(
            isinstance(item, int) and not isinstance(item, bool) and item >= minimum
            for item in value
        )
        if not right:
            raise self.wrong(name, value, f"a list of whole numbers of at least {minimum}")
        return tuple(value)

    def items(self, name: str, parse: Callable[[object, str], Any]) -> tuple[Any, ...]:
        """Parse every item of a list field with `parse(item, where)`."""
        value = self.take(name)
        if not isinstance(value, (list, tuple)):
            raise self.wrong(name, value, "a list")
        return tuple(
            parse(item, f"{self._where}, {name}[{index}]") for index, item in enumerate(value)
        )

    def wrong(self, name: str, value: object, expected: str) -> FileFormatError:
        return FileFormatError(f'{self._where}: "{name}" is {value!r}, expected {expected}')

    def done(self) -> None:
        """Refuse fields that were not asked for."""
        unknown = sorted(set(self._value) - self._seen)
        if unknown:
            known = ", ".join(sorted(self._seen))
            raise FileFormatError(
                f'{self._where} has the unknown field "{unknown[0]}": known fields are {known}'
            )
