"""run: a recipe and a folder to a finished super-network or network, resumable."""

from __future__ import annotations

import contextlib
from pathlib import Path

from vitresnas.data.by_class import images_by_class
from vitresnas.data.evaluate import Evaluation
from vitresnas.data.load import Data, load_data
from vitresnas.data.stand_in import stand_in
from vitresnas.errors import InputError, MismatchError
from vitresnas.files import JsonObject, read_lines, storage_errors
from vitresnas.latency.environment import describe_environment
from vitresnas.train.checkpoints import keep_newest
from vitresnas.train.distributed import World, join
from vitresnas.train.dry_run import DryRun, dry_run
from vitresnas.train.metrics import METRICS
from vitresnas.train.place import CHECKPOINT_SECONDS, Place, choose_place, threads_of
from vitresnas.train.precision import settled
from vitresnas.train.recipe import Recipe
from vitresnas.train.result import TrainingResult
from vitresnas.train.run_folder import begun, claim, first_difference, only_process
from vitresnas.train.stop import asked_to_stop
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

    Under torchrun all processes call this; each trains its share of every batch, and all return the
    result that the first one writes. SIGTERM ends a run after its step, with a checkpoint.

    `out` becomes a super-network or a model directory; beside it lie metrics.jsonl, tensorboard/
    and checkpoints/. A finished run is not trained again, its result is read.
    workers: processes that decode and augment; None chooses. Raises MismatchError where `out`
    holds another run, DataError, InputError, TrainingDiverged, StorageError.
    """
    out = Path(out)
    with join() as world, contextlib.ExitStack() as stack:
        place = world.together(
            lambda: choose_place(recipe, device, workers, checkpoint_seconds, world)
        )
        chosen = settled(recipe, place.device, world.told(lambda: begun(out)))
        data, task = world.together(lambda: _prepare(chosen))
        identity = run_identity(chosen, data, task)
        _compare(world, identity)
        stack.enter_context(threads_of(place))
        finished = world.told(lambda: _claim(stack, out, identity))
        if finished is not None:
            return finished
        # Test images that cannot be read are told of now, not after days; none is kept till then.
        world.told(lambda: data.read_test().left_out)
        trainer = Trainer(task, data, chosen, place)
        with asked_to_stop() as stop:
            trainer.fit(out, identity, stop)
        return world.told(lambda: _finish(trainer, data, out, identity))


def _compare(world: World, identity: JsonObject) -> None:
    """Raise MismatchError, on one process, where machines see other images or other files."""
    first = world.told(lambda: identity)

    def refuse() -> None:
        difference = first_difference(first, identity, "here it")
        if difference:
            raise MismatchError(
                f"process {world.rank} of this run would train with other files than process 0 "
                f"({difference}): give all machines the same files"
            )

    world.together(refuse)


def _claim(stack: contextlib.ExitStack, out: Path, identity: JsonObject) -> TrainingResult | None:
    """Take `out` for this run; the result of one that has finished there already."""
    stack.enter_context(only_process(out))
    claim(out, identity)
    return TrainingResult.load(out)


def look(recipe: Recipe, *, device: str = "auto", workers: int | None = None) -> DryRun:
    """What `run` would train, and how long it would take; writes nothing.

    A recipe that brings no images is timed on noise of the same size, a teacher of timm without its
    weights. Under torchrun all processes call this, and their steps are timed together.
    """
    with join() as world:
        place = world.together(lambda: choose_place(recipe, device, workers, world=world))
        chosen = settled(recipe, place.device)
        data, task = world.together(lambda: _prepare_look(chosen))
        with threads_of(place):
            return dry_run(chosen, data, task, place, compare=True)


def run_identity(recipe: Recipe, data: Data, task: Task) -> JsonObject:
    """What two commands must share to be one run; files count by content, not by path."""
    shaping = recipe.to_json()
    for path in ("space", "architecture", "supernet", "teacher"):
        del shaping[path]
    shaping["data"] = f"{data.name} ({data.id})"
    return {**shaping, **task.identity()}


def _prepare(recipe: Recipe) -> tuple[Data, Task]:
    if not recipe.data:
        raise InputError(
            f"{recipe.name} has no images of its own: give --data a folder with one folder of "
            "images per class, or a folder of Parquet files or of WebDataset shards"
        )
    data = _read(recipe)
    return data, create_task(recipe, data)


def _prepare_look(recipe: Recipe) -> tuple[Data, Task]:
    data = _read(recipe) if recipe.data else stand_in(image_size(recipe))
    return data, create_task(recipe, data, to_train=False)


def _read(recipe: Recipe) -> Data:
    return load_data(
        recipe.data, image_size=image_size(recipe), unreadable_share=recipe.unreadable_share
    )


def _finish(trainer: Trainer, data: Data, out: Path, identity: JsonObject) -> TrainingResult:
    """Score, save the network, and last the result, which makes the run a finished one."""
    task, model, place = trainer.task, trainer.model, trainer.place
    result = TrainingResult(
        recipe=trainer.recipe.name,
        data={"name": data.name, "id": data.id, "notes": [*data.notes, *_left_out(data)]},
        classes={
            "names": list(data.class_names),
            "holdout_images": images_by_class(data.holdout, len(data.class_names)),
            "test_images": images_by_class(data.test, len(data.class_names)),
        },
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
    keep_newest(out)
    written = TrainingResult.load(out)
    assert written is not None
    return written


def _left_out(data: Data) -> list[str]:
    splits = {"hold-out": data.holdout, "test": data.test}
    return [
        f"{images.left_out} {name} images cannot be read and were left out"
        for name, images in splits.items()
        if images.left_out
    ]


def _environment(place: Place) -> JsonObject:
    """Of the process that finished the run; processes.jsonl tells of every start."""
    where = describe_environment()
    if place.device.type == "cpu":  # on a machine that has a GPU too
        where["device"] = where["processor"]
    return {**where, "processes": place.world.size, "threads": place.threads}


def _to_json(scores: dict[str, Evaluation]) -> JsonObject:
    """How many images there are, the result tells once, class by class."""
    return {
        name: {key: value for key, value in score.to_json().items() if key != "images"}
        for name, score in scores.items()
    }
