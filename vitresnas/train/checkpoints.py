"""Checkpoints: written in one step, verified on reading, the last few kept.

A file is one line, `vitresnas/checkpoint/1 <sha256 of the rest>`, then what torch.save wrote.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from vitresnas.errors import FileFormatError, MismatchError
from vitresnas.files import atomic_path

MAGIC = "vitresnas/checkpoint/1"
FOLDER = "checkpoints"
KEEP = 2


def save_checkpoint(out: Path, epochs: int, run: str, state: dict[str, Any]) -> Path:
    """Write the state after `epochs` epochs of the run with the digest `run`; drop older ones.

    Raises StorageError on a full disk; earlier checkpoints are then untouched.
    """
    buffer = io.BytesIO()
    torch.save({"run": run, "epochs": epochs, **state}, buffer)
    content = buffer.getbuffer()
    path = out / FOLDER / f"epoch-{epochs:05d}.ckpt"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(f"{MAGIC} {hashlib.sha256(content).hexdigest()}\n".encode())
        file.write(content)
    drop_old(out, KEEP)
    return path


def drop_old(out: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`."""
    for old in _list(out)[:-keep]:
        old.unlink(missing_ok=True)


def load_latest(out: Path, run: str) -> dict[str, Any] | None:
    """The newest checkpoint of a run directory, on the CPU; None where there is none.

    Raises FileFormatError for a damaged file, MismatchError for one of another run.
    """
    paths = _list(out)
    if not paths:
        return None
    path = paths[-1]
    state = _read(path)
    if state.get("run") != run:
        raise MismatchError(
            f"the checkpoint {path} belongs to another run: remove it, or choose another --out"
        )
    return state


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    line, _, rest = content.partition(b"\n")
    magic, _, checksum = line.partition(b" ")
    if magic != MAGIC.encode():
        raise FileFormatError(f"{path} is not a checkpoint of vitresnas: remove it")
    if hashlib.sha256(rest).hexdigest().encode() != checksum:
        raise FileFormatError(
            f"the checkpoint {path} is damaged (its checksum does not match): remove it, and the "
            "same command goes on from the one before, or from the start"
        )
    try:
        state = torch.load(io.BytesIO(rest), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise FileFormatError(f"cannot read the checkpoint {path} ({reason}): remove it") from None
    if not isinstance(state, dict):
        raise FileFormatError(f"{path} is not a checkpoint of vitresnas: remove it")
    return state


def _list(out: Path) -> list[Path]:
    return sorted((out / FOLDER).glob("epoch-*.ckpt"))
