"""Real steps of a trainer, timed; processes that train together agree on every figure."""

from __future__ import annotations

import itertools
import time

from vitresnas.data.load import Data
from vitresnas.data.loader import TrainingLoader
from vitresnas.train.trainer import Trainer


def step_seconds(
    trainer: Trainer, data: Data, epoch: int, size: int, *, steps: int, patience: float
) -> list[float]:
    """Seconds of each of up to `steps` steps of `size` images, reading them included.

    An untimed step goes first: kernels are built and chosen in it, which can take seconds, and
    workers start. After `patience` seconds no further step begins. The first process's clock
    counts.
    """
    recipe, place = trainer.recipe, trainer.place
    loader = TrainingLoader(
        data.train,
        recipe.augmentation,
        size,
        seed=recipe.seed,
        device=place.device,
        workers=place.workers,
        share=trainer.share,
    )
    batches = itertools.chain.from_iterable(map(loader.epoch, itertools.repeat(epoch)))

    def take(step: int) -> float:
        begin = time.monotonic()
        images_BCHW, labels_B = next(batches)
        trainer.train_step(images_BCHW, labels_B, epoch, step)["loss"].item()
        seconds = time.monotonic() - begin
        return place.world.told(lambda: seconds)

    take(0)
    found: list[float] = []
    while len(found) < steps and sum(found) <= patience:
        found.append(take(len(found) + 1))
    return found
