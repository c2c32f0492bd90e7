"""Checkpoints: written in one step, verified on reading, the last few kept.

A file is one line, `vitresnas/checkpoint/2 <sha256 of the rest>`, then what torch.save wrote.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from vitresnas.errors import FileFormatError, MismatchError
from vitresnas.files import JsonObject, atomic_path
from vitresnas.train.run_folder import first_difference

MAGIC = "vitresnas/checkpoint/2"
FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d+)\.ckpt")
REACH = 64  # steps before the newest checkpoint from which a run can still be repeated


def save_checkpoint(out: Path, steps: int, run: JsonObject, state: dict[str, Any]) -> Path:
    """Write the state after `steps` steps of the run with the identity `run`; drop older ones.

    Raises StorageError on a full disk; earlier checkpoints are then untouched.
    """
    buffer = io.BytesIO()
    torch.save({"run": json.dumps(run, sort_keys=True), "steps": steps, **state}, buffer)
    content = buffer.getbuffer()
    path = _path(out, steps)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(f"{MAGIC} {hashlib.sha256(content).hexdigest()}\n".encode())
        file.write(content)
    drop_old(out)
    return path


def drop_old(out: Path) -> None:
    """Keep the newest checkpoint, the newest that lies REACH steps before it, and the oldest
    between these two, which will take the place of the latter."""
    steps = saved_steps(out)
    near = [step for step in steps if step > steps[-1] - REACH]
    far = steps[: -len(near)]
    for step in {*far[:-1], *near[1:-1]}:
        _path(out, step).unlink(missing_ok=True)


def drop_after(out: Path, steps: int) -> None:
    """Remove the checkpoints of states that have taken more than `steps` steps."""
    for saved in saved_steps(out):
        if saved > steps:
            _path(out, saved).unlink(missing_ok=True)


def keep_newest(out: Path) -> None:
    """Remove all checkpoints but the newest: the run is finished."""
    for step in saved_steps(out)[:-1]:
        _path(out, step).unlink(missing_ok=True)


def drop_unfinished(out: Path) -> None:
    """Remove what processes that were killed while saving left behind."""
    for path in (out / FOLDER).glob(".step-*.ckpt.*"):
        path.unlink(missing_ok=True)


def saved_steps(out: Path) -> list[int]:
    """After how many steps there are checkpoints, ascending; other files there do not count."""
    names = (_NAME.fullmatch(path.name) for path in (out / FOLDER).glob("step-*"))
    return sorted(int(name[1]) for name in names if name)


def load_checkpoint(out: Path, steps: int, run: JsonObject) -> dict[str, Any]:
    """The state after `steps` steps, on the CPU.

    Raises FileFormatError for a damaged file or one with code in it, MismatchError for one of
    another run.
    """
    path = _path(out, steps)
    state = _read(path)
    if state["steps"] != steps:
        raise FileFormatError(f"{path} holds the state after {state['steps']} steps: remove it")
    difference = first_difference(json.loads(state["run"]), json.loads(json.dumps(run)))
    if difference:
        raise MismatchError(
            f"the checkpoint {path} belongs to another run ({difference}): remove it, or choose "
            "another --out"
        )
    return state


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileFormatError(
            f"cannot read the checkpoint {path} ({error.strerror}): --out must be a folder that "
            "all processes may read"
        ) from None
    line, _, rest = content.partition(b"\n")
    magic, _, checksum = line.partition(b" ")
    if magic != MAGIC.encode():
        raise FileFormatError(f"{path} is not a checkpoint of this version of vitresnas: remove it")
    if hashlib.sha256(rest).hexdigest().encode() != checksum:
        raise FileFormatError(
            f"the checkpoint {path} is damaged (its checksum does not match): remove it, and the "
            "same command resumes from the one before, or from the start"
        )
    try:
        state = torch.load(io.BytesIO(rest), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise FileFormatError(
            f"the checkpoint {path} holds pickled code, which is never run: remove it"
        ) from None
    except (RuntimeError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileFormatError(f"cannot read the checkpoint {path} ({reason}): remove it") from None
    if not isinstance(state, dict) or not {"run", "steps"} <= state.keys():
        raise FileFormatError(f"{path} is not a checkpoint of this version of vitresnas: remove it")
    return state


def _path(out: Path, steps: int) -> Path:
    return out / FOLDER / f"step-{steps:08d}.ckpt"
