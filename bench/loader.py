"""Is the loader or the device the limit? Training steps alone, images alone, and both together.

    python bench/loader.py --data photos --recipe cifar-supernet --workers 0 2 4

device    training steps on one batch that is already there
loader    images read, augmented and normalised, and then dropped, by number of workers
together  training as it will be; `waiting` is the share of the time spent waiting for images
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitresnas.data import load_data
from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import JsonObject, write_json
from vitresnas.latency.environment import describe_environment
from vitresnas.latency.request import resolve_device
from vitresnas.train.place import choose_place, threads_of
from vitresnas.train.precision import settled
from vitresnas.train.recipe import RETRAIN, Recipe
from vitresnas.train.recipes import RECIPES, load_recipe
from vitresnas.train.tasks import create_task, image_size
from vitresnas.train.trainer import Trainer

LIMITED = 0.1  # waiting for a larger share of the time than this, the loader is the limit
WARM_UP = 2  # steps; workers start, algorithms are chosen
Batches = Iterator[tuple[Tensor, Tensor]]


@door
def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.seconds <= 0:
        raise InputError(f"seconds is {options.seconds}: use a time above 0")
    rows = measure(_recipe(options), options)
    found = verdict(rows)
    payload = {"environment": describe_environment(), "rows": rows, **found}
    for row in rows:
        waiting = f", waiting {row['waiting']:.0%}" if row["waiting"] is not None else ""
        workers = "" if row["workers"] is None else f" {row['workers']} workers"
        say(f"{row['stage']:9}{workers:11} {row['images_per_second']:10,.0f} images/s{waiting}")
    if options.out:
        write_json(options.out, "bench", payload)
        say(f"wrote {options.out}")
    print_json(payload) if options.json else print(found["sentence"])
    return 0


def measure(recipe: Recipe, options: Any) -> list[JsonObject]:
    """A row per stage and number of workers."""
    data = load_data(recipe.data, image_size=image_size(recipe))
    rows: list[JsonObject] = []
    for workers in options.workers:
        place = choose_place(recipe, options.device, workers)
        with threads_of(place):
            trainer = Trainer(create_task(recipe, data), data, recipe, place)
            if not rows:
                there = next(_batches(trainer))
                rows.append(_row("device", None, *_run(itertools.repeat(there), trainer, options)))
            rows.append(_row("loader", workers, *_run(_batches(trainer), None, options)))
            found, waiting = _run(_batches(trainer), trainer, options)
            rows.append(_row("together", workers, found, waiting))
    return rows


def verdict(rows: Sequence[JsonObject]) -> JsonObject:
    """Which of the two is the limit, the fewest workers for which it is not the loader, and that
    in a sentence."""
    together = [row for row in rows if row["stage"] == "together"]
    enough = [row["workers"] for row in together if row["waiting"] <= LIMITED]
    best = min(together, key=lambda row: row["waiting"])
    if enough:
        limit, fewest = "device", min(enough)
        sentence = f"the device is the limit: {fewest} workers keep up"
    else:
        limit, fewest = "loader", None
        sentence = (
            f"the loader is the limit: with {best['workers']} workers the device waits for "
            f"{best['waiting']:.0%} of the time; use more workers, smaller stored images, or an "
            "augmentation without crop and policy"
        )
    return {"limit": limit, "workers": fewest, "sentence": sentence}


def _batches(trainer: Trainer) -> Batches:
    return (batch for epoch in itertools.count() for batch in trainer.loader.epoch(epoch))


def _run(batches: Batches, trainer: Trainer | None, options: Any) -> tuple[float, float]:
    """(images per second, share of the time spent waiting for batches), after a warm-up."""
    device = trainer.place.device if trainer else None
    wait = _waiter(device)
    images, waited, begin = 0, 0.0, time.perf_counter()
    for step in itertools.count():
        if step == WARM_UP:
            images, waited, begin = 0, 0.0, time.perf_counter()
        asked = time.perf_counter()
        images_BCHW, labels_B = next(batches)
        wait()
        waited += time.perf_counter() - asked
        if trainer is not None:
            trainer.train_step(images_BCHW, labels_B, 0, step % trainer.loader.steps_per_epoch)
            wait()
        images += len(labels_B)
        seconds = time.perf_counter() - begin
        if step > WARM_UP and seconds > options.seconds:
            return images / seconds, waited / seconds
    raise AssertionError("count never ends")


def _waiter(device: torch.device | None) -> Callable[[], None]:
    if device is not None and device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def _row(stage: str, workers: int | None, rate: float, waiting: float) -> JsonObject:
    return {
        "stage": stage,
        "workers": workers,
        "images_per_second": rate,
        "waiting": waiting if stage == "together" else None,
    }


def _recipe(options: Any) -> Recipe:
    recipe = load_recipe(options.recipe)
    given = {name: getattr(options, name) for name in ("data", "space", "architecture")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.batch_size:
        given["batch_size"] = options.batch_size
    if not given.get("data", recipe.data):
        raise InputError(f"{recipe.name} has no images of its own: give --data")
    foreign = "space" if recipe.task == RETRAIN else "architecture"
    if foreign in given:
        raise InputError(f"--{foreign} does not apply to {recipe.name}: leave it out")
    return settled(replace(recipe, **given), torch.device(resolve_device(options.device)))


def _parser() -> Parser:
    parser = Parser(
        prog="python bench/loader.py",
        description="Time the device alone, the loader alone, and training as it will be.",
        example="python bench/loader.py --data photos --recipe cifar-supernet --workers 0 2 4",
    )
    add = parser.add_argument
    add("--data", help="as for vitresnas train")
    add("--recipe", default="digits-supernet", choices=tuple(RECIPES), help="what to train")
    add("--space", help="of a super-network, by name or file")
    add("--architecture", help="of a retraining, by name or file")
    add("--batch-size", type=int, help="instead of the recipe's")
    add("--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="to compare (0 1 2 4)")
    add("--seconds", type=float, default=5.0, help="per row (5)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--out", type=Path, help="write the result as JSON")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
