"""A look before training: the model, the schedule, and how long it will take here."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

from vitresnas.data.load import Data
from vitresnas.doors import say
from vitresnas.files import JsonObject
from vitresnas.train.place import Place
from vitresnas.train.progress import clock
from vitresnas.train.recipe import SUPERNET, Recipe
from vitresnas.train.tasks import Task
from vitresnas.train.trainer import Trainer

WARM_UP_STEPS, TIMED_STEPS = 2, 4
PATIENCE_SECONDS = 10.0  # a slow device warms up, and is timed, by fewer steps


@dataclass(frozen=True)
class DryRun:
    """What a recipe amounts to on this device. MACs are per image and forward pass."""

    recipe: Recipe
    model: str
    parameters: int
    macs_first_epoch: float
    macs_last_epoch: float
    data: str
    training_images: int
    steps_per_epoch: int
    images_per_second: float
    seconds: float

    def to_json(self) -> JsonObject:
        return {
            "recipe": self.recipe.to_json(),
            "model": self.model,
            "parameters": self.parameters,
            "macs_first_epoch": self.macs_first_epoch,
            "macs_last_epoch": self.macs_last_epoch,
            "data": self.data,
            "training_images": self.training_images,
            "steps_per_epoch": self.steps_per_epoch,
            "images_per_second": self.images_per_second,
            "seconds": self.seconds,
        }

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        recipe = self.recipe
        groups = f" in {recipe.groups} groups" if recipe.task == SUPERNET else ""
        return [
            f"model     {self.model}, {self.parameters / 1e6:.2f} M parameters",
            f"MACs      {self.macs_first_epoch / 1e6:.1f} M per image in the first epoch, "
            f"{self.macs_last_epoch / 1e6:.1f} M in the last",
            f"data      {self.data}, {self.training_images} training images",
            f"schedule  {recipe.epochs} epochs of {self.steps_per_epoch} steps, batches of "
            f"{recipe.batch_size}{groups}, learning rate {recipe.learning_rate:g} after "
            f"{recipe.warmup_epochs} epochs of warm-up, then a cosine to "
            f"{recipe.final_learning_rate:g}",
            f"speed     {self.images_per_second:.0f} images/s in the last epochs",
            f"total     about {clock(self.seconds)}",
        ]


def dry_run(recipe: Recipe, data: Data, task: Task, place: Place) -> DryRun:
    """Time a few real steps at the last epoch's widths and scale them by MACs to the whole run."""
    trainer = Trainer(task, data, recipe, place)
    say(f"timing up to {TIMED_STEPS} steps of {recipe.batch_size} images")
    last = recipe.epochs - 1
    batches = itertools.cycle(trainer.loader.epoch(last))

    def run(most: int) -> float:
        """Images per second over at most so many steps."""
        begin, images = time.monotonic(), 0
        for step, (images_BCHW, labels_B) in enumerate(itertools.islice(batches, most)):
            trainer.train_step(images_BCHW, labels_B, last, step)["loss"].item()
            images += len(labels_B)
            if time.monotonic() - begin > PATIENCE_SECONDS:
                break
        return images / (time.monotonic() - begin)

    run(WARM_UP_STEPS)  # the first steps allocate, and choose algorithms
    images_per_second = run(TIMED_STEPS)
    work = [task.expected_macs(epoch) for epoch in range(recipe.epochs)]
    images = trainer.loader.steps_per_epoch * recipe.batch_size
    seconds = sum(work) / work[-1] * images / images_per_second
    return DryRun(
        recipe=recipe,
        model=task.description,
        parameters=sum(parameter.numel() for parameter in task.model.parameters()),
        macs_first_epoch=work[0],
        macs_last_epoch=work[-1],
        data=data.name,
        training_images=len(data.train),
        steps_per_epoch=trainer.loader.steps_per_epoch,
        images_per_second=images_per_second,
        seconds=seconds,
    )
