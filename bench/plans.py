"""What a benchmark of trainings decides once: what an epoch costs here, and how many fit.

A plan is a file in the benchmark's folder, so that a command that was interrupted goes on by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from vitresnas.data import Data
from vitresnas.doors import say
from vitresnas.errors import MismatchError
from vitresnas.files import JsonObject, read_json, write_json
from vitresnas.train.dry_run import dry_run
from vitresnas.train.place import choose_place, threads_of
from vitresnas.train.recipe import Recipe
from vitresnas.train.tasks import create_task

TURNS = 2  # of timing each recipe; the faster one counts


def decided(
    path: Path, kind: str, asked: JsonObject, decide: Callable[[], JsonObject]
) -> JsonObject:
    """What `decide` says, asked once and then read from `path`, with `asked` beside it.

    Raises MismatchError where the file answers another question.
    """
    asked = json.loads(json.dumps(asked))  # as JSON gives it back: lists for tuples
    if not path.exists():
        write_json(path, kind, {"asked": asked, **decide()})
    plan = read_json(path, kind)
    if plan["asked"] != asked:
        raise MismatchError(
            f"{path} plans another comparison: repeat the command that wrote it, or choose "
            "another --out"
        )
    return plan


def seconds_per_epoch(
    recipes: Mapping[str, Recipe], data: Data, device: str, workers: int | None
) -> dict[str, float]:
    """Of training, by name: a few real steps of each, in turns."""
    seconds = dict.fromkeys(recipes, float("inf"))
    for turn in range(TURNS):
        for name, recipe in recipes.items():
            say(f"timing {name}, turn {turn + 1} of {TURNS}")
            place = choose_place(recipe, device, workers)
            with threads_of(place):
                found = dry_run(recipe, data, create_task(recipe, data), place)
            seconds[name] = min(seconds[name], found.seconds / recipe.epochs)
    return seconds


def equal_epochs(seconds: Mapping[str, float], hours: float) -> tuple[float, dict[str, int]]:
    """The time that all get, in seconds, and the epochs that each one trains in it.

    The one with the longest epochs gets the most that fit; the others come as near to its time as
    whole epochs allow.
    """
    longest = max(seconds.values())
    equal = max(1, int(hours * 3600 / longest)) * longest
    return equal, {name: max(1, round(equal / each)) for name, each in seconds.items()}
