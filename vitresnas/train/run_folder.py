"""A run's folder belongs to one run, and to one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from vitresnas.errors import MismatchError
from vitresnas.files import JsonObject, flattened, read_json, storage_errors, write_json
from vitresnas.train.recipe import RETRAIN

RUN = "training_run.json"
_SAME_NAME = " (files were added, removed or changed since, or the image size is another)"
_FREE = {"unreadable_share"}  # when to give up: it changes nothing that is learned
_OF_SUPERNETS = {"path"}  # folders of one network, by earlier versions, tell it too


def begun(out: Path) -> JsonObject | None:
    """The identity of the run in `out`; None where there is none."""
    path = out / RUN
    return read_json(path, "training_run") if path.exists() else None


def claim(out: Path, identity: JsonObject) -> None:
    """Write down what `out` trains, or check that it is `identity`.

    Raises MismatchError naming the first field that differs.
    """
    found = begun(out)
    if found is None:
        write_json(out / RUN, "training_run", identity)
        return
    difference = first_difference(found, identity)
    if difference:
        raise MismatchError(
            f"{out} holds a run with {difference}: choose another --out, or repeat the command "
            "that began it"
        )


def first_difference(theirs: JsonObject, ours: JsonObject, whose: str = "this command's") -> str:
    """The first field in which two identities differ, in words; empty where none does."""
    found, wanted = flattened(theirs), flattened(ours)
    free = _FREE | (_OF_SUPERNETS if found.get("task") == RETRAIN else set())
    for field in sorted((found.keys() | wanted.keys()) - free):
        if found.get(field) != wanted.get(field):
            words = f"{field} {found.get(field)!r}, {whose} is {wanted.get(field)!r}"
            return words + (_SAME_NAME if field == "data" and _same_name(found, wanted) else "")
    return ""


def _same_name(theirs: JsonObject, ours: JsonObject) -> bool:
    """Whether images of one name, as in "photos (1f2e3d4c)", differ in their digest."""
    before, now = (str(one.get("data")).rpartition(" (")[0] for one in (theirs, ours))
    return before == now != ""


@contextlib.contextmanager
def only_process(out: Path) -> Iterator[None]:
    """Hold `out` against a second process; the lock dies with its process, whatever kills it."""
    path = out / ".lock"
    with storage_errors(path):
        out.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            # POSIX record locks: forked workers do not inherit them.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MismatchError(
                f"another process is training in {out}: wait for it, or choose another --out"
            ) from None
        yield
