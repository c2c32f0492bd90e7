"""run: a recipe and a folder to a finished super-network or network, resumable."""

from __future__ import annotations

from pathlib import Path

import torch

from vitresnas.data.load import Data, load_data
from vitresnas.errors import InputError
from vitresnas.files import JsonObject, digest, read_lines, storage_errors
from vitresnas.train.checkpoints import drop_old
from vitresnas.train.dry_run import DryRun, dry_run
from vitresnas.train.evaluate import Score
from vitresnas.train.metrics import METRICS
from vitresnas.train.place import CHECKPOINT_SECONDS, Place, choose_place, threads_of
from vitresnas.train.recipe import Recipe
from vitresnas.train.result import TrainingResult
from vitresnas.train.run_folder import claim, only_process
from vitresnas.train.tasks import Task, create_task, image_size
from vitresnas.train.trainer import Trainer


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> TrainingResult:
    """Train `recipe` into the folder `out`, going on where an interrupted run stopped.

    `out` becomes a super-network or a model directory; beside it lie metrics.jsonl, tensorboard/
    and checkpoints/. A finished run is not trained again, its result is read.
    workers: processes that decode and augment; None chooses. Raises MismatchError where `out`
    holds another run, DataError, InputError, TrainingDiverged, StorageError.
    """
    out = Path(out)
    place = choose_place(recipe, device, workers, checkpoint_seconds)
    data, task = _prepare(recipe)
    identity = run_identity(recipe, data, task)
    with only_process(out), threads_of(place):
        claim(out, identity)
        finished = TrainingResult.load(out)
        if finished is not None:
            return finished
        trainer = Trainer(task, data, recipe, place)
        trainer.fit(out, digest(identity))
        return _finish(trainer, data, out, identity)


def look(recipe: Recipe, *, device: str = "auto", workers: int | None = None) -> DryRun:
    """What `run` would train, and how long it would take; writes nothing."""
    place = choose_place(recipe, device, workers)
    data, task = _prepare(recipe)
    with threads_of(place):
        return dry_run(recipe, data, task, place)


def run_identity(recipe: Recipe, data: Data, task: Task) -> JsonObject:
    """What two commands must share to be one run; files count by content, not by path."""
    shaping = recipe.to_json()
    for path in ("space", "architecture", "supernet"):
        del shaping[path]
    shaping["data"] = f"{data.name} ({data.id})"
    return {**shaping, **task.identity()}


def _prepare(recipe: Recipe) -> tuple[Data, Task]:
    if not recipe.data:
        raise InputError(
            f"{recipe.name} brings no images: give --data a folder with one folder of images per "
            "class, or a folder of Parquet files"
        )
    data = load_data(recipe.data, image_size=image_size(recipe))
    return data, create_task(recipe, data)


def _finish(trainer: Trainer, data: Data, out: Path, identity: JsonObject) -> TrainingResult:
    """Score, save the network, and last the result, which makes the run a finished one."""
    task, model, place = trainer.task, trainer.model, trainer.place
    result = TrainingResult(
        recipe=trainer.recipe.name,
        data={"name": data.name, "id": data.id, "notes": list(data.notes)},
        holdout=_to_json(task.scores(model, trainer.holdout, full=True)),
        test=_to_json(task.scores(model, data.test.to(place.device), full=True)),
        seconds=sum(line["seconds"] for line in read_lines(out / METRICS)),
    )
    card: JsonObject = {
        **result.to_json(),
        "class_names": list(data.class_names),
        "run": identity,
        "environment": _environment(place),
    }
    model.eval()
    with storage_errors(out):
        task.save(model, out, card)
    result.save(out)
    drop_old(out, keep=1)
    return result


def _environment(place: Place) -> JsonObject:
    name = "cpu"
    if place.device.type == "cuda":
        name = torch.cuda.get_device_name(place.device)
    return {"torch": torch.__version__, "device": name, "threads": place.threads}


def _to_json(scores: dict[str, Score]) -> JsonObject:
    return {name: score.to_json() for name, score in scores.items()}
