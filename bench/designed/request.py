"""What the command asks for, the recipes that follow from it, and the files it writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vitresnas.data import Data, load_data
from vitresnas.errors import InputError
from vitresnas.files import JsonObject, read_lines
from vitresnas.latency.request import resolve_device
from vitresnas.space import SearchSpace, load_space
from vitresnas.train.metrics import METRICS
from vitresnas.train.precision import settled
from vitresnas.train.recipe import RETRAIN, SUPERNET, Recipe
from vitresnas.train.recipes import load_recipe, recipes_for
from vitresnas.train.tasks import image_size, supernet_space

LOOKS = 20  # at the hold-out during a training: the points of its curve


@dataclass(frozen=True)
class Request:
    """hours, retrain_hours: of training; None for the epochs of the recipe."""

    recipe: str
    out: Path
    space: str | None = None
    data: str | None = None
    hours: float | None = None
    retrain_recipe: str | None = None
    retrain_hours: float | None = None
    throughput_target: str | None = None
    strategy: str = "evolution"
    candidates: int | None = None
    designed: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "fp32"
    batch_size: int | None = None
    runtime: str = "eager"
    threads: int | None = None
    workers: int | None = None
    table_seconds: float = 30.0
    proof_seconds: float = 15.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hours", "retrain_hours", "table_seconds", "proof_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}: use a number above 0")

    @property
    def supernet(self) -> Path:
        return self.out / "supernet"

    @property
    def table(self) -> Path:
        return self.out / "latency_table.json"

    def supernet_recipe(self) -> Recipe:
        """Of the recipe's own length. Raises InputError."""
        recipe = load_recipe(self.recipe)
        if recipe.task != SUPERNET:
            raise InputError(
                f"{recipe.name} trains one network: give the recipe of a super-network"
            )
        recipe = replace(
            recipe,
            seed=self.seed,
            space=self.space or recipe.space,
            data=self.data or recipe.data,
        )
        if not recipe.data:
            raise InputError(f"{recipe.name} has no images of its own: give --data")
        return settled(recipe, torch.device(resolve_device(self.device)))

    def retraining(self, architecture: str) -> Recipe:
        """Of one contestant, from random weights; of the recipe's own length. Raises InputError.

        Usually by the recipe that goes with the super-network's.
        """
        base = self.supernet_recipe()
        usual = recipes_for(load_space(load_recipe(self.recipe).space)).retrain
        recipe = load_recipe(self.retrain_recipe or usual)
        if recipe.task != RETRAIN:
            raise InputError(f"{recipe.name} trains a super-network: give a recipe for one network")
        return replace(recipe, architecture=architecture, data=base.data, seed=self.seed)

    def read(self) -> tuple[Data, SearchSpace]:
        """The images, and the space with their classes."""
        recipe = self.supernet_recipe()
        data = load_data(recipe.data, image_size=image_size(recipe))
        return data, supernet_space(recipe, data)


def looked_at(recipe: Recipe) -> Recipe:
    """With as many looks at the hold-out as a curve needs; they are no training time."""
    return replace(recipe, evaluate_every=max(1, recipe.epochs // LOOKS))


def curve(out: Path, network: str) -> list[JsonObject]:
    """The hold-out by seconds of training, of a run's folder."""
    seconds, points = 0.0, []
    for line in read_lines(out / METRICS):
        seconds += line["seconds"]
        if f"holdout_{network}_nll" in line:
            points.append(
                {
                    "epoch": line["epoch"],
                    "seconds": seconds,
                    "negative_log_likelihood": line[f"holdout_{network}_nll"],
                    "accuracy": line[f"holdout_{network}_accuracy"],
                }
            )
    return points
