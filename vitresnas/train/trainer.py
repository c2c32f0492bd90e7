"""The loop, the only one: epochs of steps, a line of metrics and a checkpoint after each."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitresnas.data.load import Data
from vitresnas.data.loader import TrainingLoader
from vitresnas.data.mixing import Mixer
from vitresnas.data.streams import stream
from vitresnas.errors import TrainingDiverged
from vitresnas.files import JsonObject
from vitresnas.train.checkpoints import load_latest, save_checkpoint
from vitresnas.train.metrics import MetricLog
from vitresnas.train.objectives import Objective, classification
from vitresnas.train.optimiser import create_optimizer, create_schedule
from vitresnas.train.place import Place
from vitresnas.train.progress import TrainingProgress
from vitresnas.train.recipe import Recipe
from vitresnas.train.tasks import Task

# A check of the loss makes a GPU wait, so there it is done every so many steps.
STEPS_BETWEEN_CHECKS = {"cpu": 1}
STEPS_BETWEEN_CHECKS_ELSEWHERE = 20

_CURE = (
    "lower the learning rate (--learning-rate), or train with --dtype fp32; "
    "checkpoints of earlier epochs are untouched"
)


class Trainer:
    """A task, its optimiser, schedule and weight average, and how they are saved."""

    def __init__(
        self,
        task: Task,
        data: Data,
        recipe: Recipe,
        place: Place,
        objective: Objective = classification,
    ) -> None:
        self.task, self.recipe, self.place = task, recipe, place
        self.objective = objective
        task.model.to(place.device).train()
        self.loader = TrainingLoader(
            data.train,
            recipe.augmentation,
            recipe.batch_size,
            seed=recipe.seed,
            device=place.device,
            workers=place.workers,
        )
        self.mixer = Mixer(recipe.mixing, len(data.class_names), recipe.seed)
        self.holdout = data.holdout.to(place.device)
        self.optimizer = create_optimizer(task.model, recipe)
        self.schedule = create_schedule(self.optimizer, recipe, self.loader.steps_per_epoch)
        self.average = _create_average(task.model, recipe)
        self.epochs_done = 0

    @property
    def model(self) -> nn.Module:
        """The weights to use: the average where one is kept."""
        return self.task.model if self.average is None else self.average.module

    def fit(self, out: Path, run: str) -> None:
        """Train to the end, from the newest checkpoint in `out` where there is one.

        Raises TrainingDiverged, StorageError; earlier checkpoints then stay.
        """
        self._restore(load_latest(out, run))
        if self.epochs_done == self.recipe.epochs:
            return
        work = [self.task.expected_macs(epoch) for epoch in range(self.recipe.epochs)]
        log = MetricLog(out, self.epochs_done)
        saved = time.monotonic()
        steps = self.loader.steps_per_epoch
        with TrainingProgress(self.recipe.name, work, steps, self.epochs_done) as progress:
            for epoch in range(self.epochs_done, self.recipe.epochs):
                record = self.train_epoch(epoch, progress)
                self.epochs_done = epoch + 1
                last = self.epochs_done == self.recipe.epochs
                if last or self.epochs_done % self.recipe.evaluate_every == 0:
                    for name, score in self.task.scores(
                        self.model, self.holdout, full=False
                    ).items():
                        if not math.isfinite(score.negative_log_likelihood):
                            raise TrainingDiverged(
                                f"after epoch {self.epochs_done} the {name} network scores "
                                f"{score.negative_log_likelihood} on the hold-out at learning rate "
                                f"{self.learning_rate:.3g}: {_CURE}"
                            )
                        record[f"holdout_{name}_accuracy"] = score.accuracy
                        record[f"holdout_{name}_nll"] = score.negative_log_likelihood
                log.write(record)
                if last or time.monotonic() - saved >= self.place.checkpoint_seconds:
                    save_checkpoint(out, self.epochs_done, run, self._state())
                    saved = time.monotonic()
                progress.epoch(_describe(record, self.recipe.epochs), last=last)
        log.close()

    def train_epoch(self, epoch: int, progress: TrainingProgress | None = None) -> JsonObject:
        """One pass over the training images; the epoch's line of metrics."""
        started = time.monotonic()
        averages = [] if self.average is None else [self.average.module]
        self.task.begin_epoch(epoch, self.optimizer, averages)
        watch = _LossWatch(self.place.device)
        images = 0
        for step, (images_BCHW, labels_B) in enumerate(self.loader.epoch(epoch)):
            number = epoch * self.loader.steps_per_epoch + step
            losses = self.train_step(images_BCHW, labels_B, epoch, step)
            watch.add(losses["loss"], number, self.learning_rate)
            images += len(labels_B)
            if progress is not None:
                progress.step(epoch)
        watch.check()
        seconds = time.monotonic() - started
        return {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.loader.steps_per_epoch,
            "loss": watch.mean,
            "learning_rate": self.learning_rate,
            "seconds": seconds,
            "images_per_second": images / seconds,
        }

    def train_step(
        self, images_BCHW: Tensor, labels_B: Tensor, epoch: int, step: int
    ) -> dict[str, Tensor]:
        """Mix, forward, backward, update; the losses by name, detached."""
        recipe = self.recipe
        number = epoch * self.loader.steps_per_epoch + step
        self.schedule.step_update(number)
        torch.manual_seed(stream(recipe.seed, "step", epoch, step))  # drop path draws from this
        images_BCHW, targets_BK = self.mixer(images_BCHW, labels_B, epoch, step)
        with autocast(recipe.dtype, self.place.device):
            heads = self.task.heads(images_BCHW, epoch, step)
        losses = self.objective(heads, targets_BK)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        if recipe.clip_gradient:
            nn.utils.clip_grad_norm_(self.task.model.parameters(), recipe.clip_gradient)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.task.model, step=number)
        return {name: loss.detach() for name, loss in losses.items()}

    @property
    def learning_rate(self) -> float:
        """Of the step that was taken last."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
        }

    def _restore(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        self.task.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.epochs_done = state["epochs"]


class _LossWatch:
    """The mean loss of an epoch, and the first step whose loss is not a number."""

    def __init__(self, device: torch.device) -> None:
        self._every = STEPS_BETWEEN_CHECKS.get(device.type, STEPS_BETWEEN_CHECKS_ELSEWHERE)
        self._pending: list[tuple[Tensor, int, float]] = []
        self._sum, self._count = 0.0, 0

    @property
    def mean(self) -> float:
        return self._sum / self._count

    def add(self, loss: Tensor, step: int, learning_rate: float) -> None:
        self._pending.append((loss, step, learning_rate))
        if len(self._pending) >= self._every:
            self.check()

    def check(self) -> None:
        for loss, step, learning_rate in self._pending:
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"the loss of step {step} is {value} at learning rate {learning_rate:.3g}: "
                    + _CURE
                )
            self._sum += value
            self._count += 1
        self._pending.clear()


def autocast(dtype: str, device: torch.device) -> torch.autocast:
    """bf16 autocast where the recipe asks for it, or where it is fast (a GPU that has it)."""
    if dtype == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bf16" if fast else "fp32"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bf16")


def _create_average(model: nn.Module, recipe: Recipe) -> Any:
    if not recipe.average:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=recipe.average, use_warmup=True)


def _describe(record: JsonObject, epochs: int) -> str:
    text = f"epoch {record['epoch']}/{epochs}, loss {record['loss']:.3f}"
    for name, value in record.items():
        if name.endswith("_accuracy"):
            which = name.removeprefix("holdout_").removesuffix("_accuracy")
            text += f", {which} {100 * value:.1f} %"
    return f"{text}, {record['images_per_second']:.0f} images/s"
