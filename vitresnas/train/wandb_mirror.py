"""Weights & Biases beside TensorBoard, for those who ask for it."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from vitresnas.doors import Rank
from vitresnas.errors import InputError, how_to_install
from vitresnas.files import digest, storage_errors
from vitresnas.train.recipe import Recipe


@contextlib.contextmanager
def shown_in_wandb(project: str | None, recipe: Recipe, out: Path) -> Iterator[None]:
    """Send what a run inside writes to TensorBoard to this project too; None: do nothing.

    A run that goes on in the same folder goes on there as well. Raises InputError where the
    package is missing.
    """
    if project is None or not Rank.here().leads:
        yield
        return
    if importlib.util.find_spec("wandb") is None:
        raise InputError(f"--wandb needs a package that is not here: {how_to_install('watch')}")
    import wandb

    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    try:
        shown = wandb.init(
            project=project,
            name=out.name,
            id=digest([project, str(out.resolve())])[:16],
            resume="allow",
            dir=str(out),
            config=recipe.to_json(),
            sync_tensorboard=True,
        )
    except wandb.Error as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"Weights & Biases cannot be reached ({reason}): run `wandb login`, or set "
            "WANDB_MODE=offline and sync later"
        ) from error
    with shown:
        yield
