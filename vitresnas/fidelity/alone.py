"""One network trained alone: the super-network's own recipe, shorter, on one network."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from vitresnas.data import Augmentation, Data, Mixing, load_data
from vitresnas.errors import TrainingDiverged
from vitresnas.fidelity.request import Training
from vitresnas.fidelity.score import Scores, score
from vitresnas.files import Fields, JsonObject
from vitresnas.space import Architecture
from vitresnas.train.place import Place, choose_place, threads_of
from vitresnas.train.recipe import Recipe, retraining
from vitresnas.train.rollbacks import CURE
from vitresnas.train.tasks import create_task
from vitresnas.train.trainer import Trainer
from vitresnas.train.watch import Setback

_SETBACKS = 3  # of one training, then it is given up


@dataclass(frozen=True)
class Trained:
    """How a training ended. seconds: of this training, on a machine shared with the others."""

    architecture_id: str
    seed: int
    scores: Scores
    seconds: float

    def to_json(self) -> JsonObject:
        return {
            "architecture_id": self.architecture_id,
            "seed": self.seed,
            "scores": self.scores.to_json(),
            "seconds": round(self.seconds, 2),
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Trained:
        fields = Fields(value, where)
        found = cls(
            fields.text("architecture_id"),
            fields.integer("seed", minimum=0),
            Scores.from_json(fields.take("scores"), f"{where}, scores"),
            fields.number("seconds", minimum=0),
        )
        fields.done()
        return found


def recipe_of(card: Mapping[str, Any]) -> Recipe | None:
    """The recipe in a super-network's card; None where the card does not tell."""
    run = card.get("run")
    if not isinstance(run, dict) or "augmentation" not in run:
        return None
    known = {field.name for field in fields(Recipe)} - {"data"}
    values = {name: _frozen(value) for name, value in run.items() if name in known}
    for name, kind in (("augmentation", Augmentation), ("mixing", Mixing)):
        values[name] = kind(**{key: _frozen(value) for key, value in run[name].items()})
    return Recipe(**values)


def alone(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe of a super-network, for one network, in `epochs` epochs."""
    warmup = min(recipe.warmup_epochs, max(1, epochs // 6))
    return retraining(
        recipe,
        f"{recipe.name}-alone",
        "",  # every training has its own
        epochs=epochs,
        warmup_epochs=warmup,
        average=0.0,  # needs more steps than a short schedule has
    )


@dataclass(frozen=True)
class Trainings:
    """What all trainings share; travels to the workers.

    recipe: of `alone`, without architecture. folder: where `<id>.json` describes every network.
    """

    recipe: Recipe
    data: str | None
    image_size: int
    folder: Path
    device: str
    workers: int

    def train(self, training: Training) -> Trained:
        """Train to the end and score on the hold-out. Raises TrainingDiverged.

        On a CPU the same training on as many threads gives the same scores, bit for bit.
        """
        began = time.monotonic()
        path = architecture_file(self.folder, training.architecture)
        recipe = replace(self.recipe, architecture=str(path), seed=training.seed)
        place = choose_place(recipe, self.device, workers=0)
        place = replace(place, threads=max(1, place.threads // self.workers))
        with threads_of(place):
            trainer = self._trained(recipe, place)
            model = trainer.model.eval()
            found = score(lambda images_BCHW: cast(Tensor, model(images_BCHW)), trainer.holdout)
        return Trained(training.architecture.id, training.seed, found, time.monotonic() - began)

    def _trained(self, recipe: Recipe, place: Place) -> Trainer:
        """From the start once more where a step went wrong, without that step."""
        left_out: set[int] = set()
        while True:
            trainer = Trainer(create_task(recipe, self._images), self._images, recipe, place)
            try:
                for epoch in range(recipe.epochs):
                    trainer.train_epoch(epoch, left_out.__contains__)
            except Setback as setback:
                if len(left_out) == _SETBACKS:
                    raise TrainingDiverged(f"{setback}: {CURE}") from None
                left_out.add(setback.step)
            else:
                return trainer

    @property
    def _images(self) -> Data:
        return _images(self.data, self.image_size, self.recipe.unreadable_share)


def architecture_file(folder: Path, architecture: Architecture) -> Path:
    return folder / f"{architecture.id}.json"


@functools.lru_cache(maxsize=1)
def _images(data: str | None, image_size: int, unreadable_share: float) -> Data:
    """Once per process: decoding takes longer than a short training of a small network."""
    return load_data(data, image_size=image_size, unreadable_share=unreadable_share)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
