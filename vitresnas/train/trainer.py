"""The loop, the only one: epochs of steps, a line of metrics after each, checkpoints between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitresnas.data import unreadable
from vitresnas.data.load import Data
from vitresnas.data.loader import TrainingLoader
from vitresnas.data.mixing import Mixer
from vitresnas.data.share import Piece
from vitresnas.data.streams import stream
from vitresnas.errors import TrainingDiverged
from vitresnas.files import JsonObject
from vitresnas.progress import Progress
from vitresnas.train.batch_norm import share_batch_norm
from vitresnas.train.checkpoints import (
    drop_unfinished,
    load_checkpoint,
    save_checkpoint,
    saved_steps,
)
from vitresnas.train.distributed import averaged_once
from vitresnas.train.metrics import metric_log
from vitresnas.train.objectives import Objective
from vitresnas.train.optimiser import create_optimizer, create_schedule
from vitresnas.train.pace import CheckpointPace
from vitresnas.train.place import Place, share
from vitresnas.train.precision import autocast
from vitresnas.train.recipe import Recipe
from vitresnas.train.rollbacks import CURE, Rollbacks
from vitresnas.train.tasks import Task
from vitresnas.train.watch import LossWatch, Setback


class Trainer:
    """A task, its optimiser, schedule and weight average, and how they are saved.

    Of several processes each trains its share of every batch; all hold the same weights.
    """

    def __init__(
        self,
        task: Task,
        data: Data,
        recipe: Recipe,
        place: Place,
        objective: Objective | None = None,
    ) -> None:
        """objective: what to train for instead of the task's own."""
        self.task, self.recipe, self.place = task, recipe, place
        self.objective = objective or task.objective
        self.share = share(recipe, place.world)
        task.model.to(place.device).train()
        if place.world.joined:
            share_batch_norm(task.model)
        self.network = place.world.data_parallel(_Network(task), place.device)
        self.dtype = next(task.model.parameters()).dtype
        self.loader = TrainingLoader(
            data.train,
            recipe.augmentation,
            recipe.batch_size,
            seed=recipe.seed,
            device=place.device,
            workers=place.workers,
            share=self.share,
            sampling=recipe.sampling,
        )
        self.mixer = Mixer(
            recipe.mixing,
            len(data.class_names),
            recipe.seed,
            groups=self.share.groups(recipe.parts),
            grid=task.grid,
        )
        self._images = len(data.train)
        self.holdout = data.holdout.to(place.device)
        self.optimizer = create_optimizer(task.model, recipe)
        self.schedule = create_schedule(self.optimizer, recipe, self.loader.steps_per_epoch)
        self.average = create_average(task.model, recipe)
        self.watch = LossWatch(place.device, place.world)
        self.steps_done = 0
        self._epoch_seconds = 0.0  # of the epoch that is being trained

    @property
    def model(self) -> nn.Module:
        """The weights to use: the average where one is kept."""
        return self.task.model if self.average is None else self.average.module

    @property
    def epochs_done(self) -> int:
        return self.steps_done // self.loader.steps_per_epoch

    def fit(self, out: Path, run: JsonObject, stop: Callable[[], bool] = lambda: False) -> None:
        """Train to the end, from the newest checkpoint in `out` where there is one.

        run: the identity that checkpoints carry. stop: asked after every step; a yes on any process
        saves a checkpoint and raises KeyboardInterrupt on all. Setbacks are rolled back. Raises
        TrainingDiverged where that does not help, StorageError; earlier checkpoints then stay.
        """
        world = self.place.world
        rollbacks = Rollbacks(out, world)
        while True:
            self._restore(out, run)
            try:
                self._train(out, run, stop, rollbacks)
                return
            except Setback as setback:
                go_back = partial(rollbacks.add, setback)
            world.together(go_back)

    def _train(
        self, out: Path, run: JsonObject, stop: Callable[[], bool], rollbacks: Rollbacks
    ) -> None:
        """From where the weights stand to the end. Raises Setback."""
        recipe, world = self.recipe, self.place.world
        if self.epochs_done == recipe.epochs:
            return
        work = [self.task.expected_macs(epoch) for epoch in range(recipe.epochs)]
        pace = CheckpointPace(self.place.checkpoint_seconds)
        steps = self.loader.steps_per_epoch
        # Early epochs of a super-network run the largest networks: an ETA by steps would be wrong.
        behind = sum(work[step // steps] for step in range(self.steps_done))
        progress = Progress(recipe.name, steps * sum(work), behind, silent=not world.leads)

        def save_if_due(*, last: bool) -> None:
            stopping, due = world.any(stop(), world.leads and (last or pace.due()))
            if stopping or due:
                with pace.saving():
                    self._save(out, run)
            if stopping and not last:
                raise KeyboardInterrupt

        def between() -> None:
            progress.add(work[(self.steps_done - 1) // steps])
            if self.steps_done % steps:
                save_if_due(last=False)

        logged = metric_log(out, self.steps_done) if world.leads else nullcontext()
        with progress, logged as log:
            for epoch in range(self.epochs_done, recipe.epochs):
                record = self.train_epoch(epoch, rollbacks.leave_out, between)
                last = self.epochs_done == recipe.epochs
                if last or self.epochs_done % recipe.evaluate_every == 0:
                    record.update(self._holdout_scores())
                if log is not None:
                    log.write(record)
                save_if_due(last=last)
                progress.tell(_describe(record, recipe.epochs), always=last)

    def train_epoch(
        self,
        epoch: int,
        leave_out: Callable[[int], bool] = lambda step: False,
        between: Callable[[], None] = lambda: None,
    ) -> JsonObject:
        """What is left of one pass over the training images; the epoch's line of metrics.

        leave_out: tells which steps of the run are not to be trained. between: called after each
        step. Raises Setback.
        """
        started = time.monotonic()
        steps = self.loader.steps_per_epoch
        first = self.steps_done - epoch * steps
        if first == 0:
            averages = [] if self.average is None else [self.average.module]
            self.task.begin_epoch(epoch, self.optimizer, averages)
            self.watch.begin_epoch()
            self._epoch_seconds = 0.0
        for step, (images_BCHW, labels_B) in enumerate(self.loader.epoch(epoch, first), first):
            number = epoch * steps + step
            if not leave_out(number):
                losses = self.train_step(images_BCHW, labels_B, epoch, step)
                self.watch.add(losses["loss"], number, self.learning_rate, self.loader.stand_ins)
                self._check_images()
            self.steps_done = number + 1
            now = time.monotonic()
            self._epoch_seconds, started = self._epoch_seconds + now - started, now
            between()
        self.watch.look()
        if not self.watch.count:
            raise TrainingDiverged(f"every step of epoch {epoch + 1} went wrong: {CURE}")
        return {
            "epoch": epoch + 1,
            "step": self.steps_done,
            "steps_left_out": steps - self.watch.count,
            "unreadable_images": self.watch.stand_ins,
            "loss": self.watch.mean,
            "learning_rate": self.learning_rate,
            "seconds": self._epoch_seconds,
            "images_per_second": steps * self.recipe.batch_size / self._epoch_seconds,
        }

    def train_step(
        self, images_BCHW: Tensor, labels_B: Tensor, epoch: int, step: int
    ) -> dict[str, Tensor]:
        """Mix, forward and backward in turns, update; this process's losses by name, detached."""
        recipe, turns = self.recipe, self.share.turns
        number = epoch * self.loader.steps_per_epoch + step
        here = self.share.stream(step)
        self.schedule.step_update(number)
        torch.manual_seed(stream(recipe.seed, "step", epoch, here))  # drop path draws from this
        images_BCHW, targets = self.mixer(images_BCHW.to(self.dtype), labels_B, epoch, here)
        self.optimizer.zero_grad(set_to_none=True)
        found: dict[str, Tensor] = {}
        for turn, part_BCHW in enumerate(images_BCHW.chunk(turns)):
            labels = {name: soft.chunk(turns)[turn] for name, soft in targets.items()}
            with averaged_once(self.network, last=turn == turns - 1):
                with autocast(recipe.dtype, self.place.device):
                    heads = self.network(part_BCHW, epoch, step, self.share.piece(turn))
                losses = self.objective(heads, labels)
                (losses["loss"] / turns).backward()
            for name, loss in losses.items():
                found[name] = found.get(name, 0.0) + loss.detach() / turns
        if recipe.clip_gradient:
            nn.utils.clip_grad_norm_(self.task.model.parameters(), recipe.clip_gradient)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.task.model, step=number)
        return found

    @property
    def learning_rate(self) -> float:
        """Of the step that was taken last."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _check_images(self) -> None:
        """Raise DataError, on all processes, where too many images of the epoch cannot be read."""
        count, total, share = self.watch.stand_ins, self._images, self.recipe.unreadable_share
        if count > share * total:
            named = "they were named above"
            self.place.world.together(
                lambda: unreadable.check(count, total, share, "training images", named)
            )

    def _holdout_scores(self) -> JsonObject:
        """Every process scores alike, so that all know of a setback. Raises Setback."""
        found: JsonObject = {}
        for name, score in self.task.scores(self.model, self.holdout, full=False).items():
            if not math.isfinite(score.negative_log_likelihood):
                raise Setback(
                    self.steps_done - 1,
                    f"after epoch {self.epochs_done} the {name} network scores "
                    f"{score.negative_log_likelihood} on the hold-out at learning rate "
                    f"{self.learning_rate:.3g}",
                )
            found[f"holdout_{name}_accuracy"] = score.accuracy
            found[f"holdout_{name}_nll"] = score.negative_log_likelihood
        return found

    def _save(self, out: Path, run: JsonObject) -> None:
        self.watch.look()  # what is saved is known to be good
        world = self.place.world
        world.together(lambda: self._write(out, run) if world.leads else None)

    def _write(self, out: Path, run: JsonObject) -> None:
        state = {
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "watch": self.watch.state(),
            "epoch_seconds": self._epoch_seconds,
        }
        save_checkpoint(out, self.steps_done, run, state)

    def _restore(self, out: Path, run: JsonObject) -> None:
        """The newest checkpoint; where there is none, the start becomes one to go back to."""
        world = self.place.world
        steps = world.told(lambda: _newest(out))
        if steps is None:
            self._save(out, run)
            return
        state = world.together(partial(load_checkpoint, out, steps, run))
        self.task.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.watch.restore(state["watch"])
        self._epoch_seconds = state["epoch_seconds"]
        self.steps_done = steps


class _Network(nn.Module):
    """A task as the module that DDP wraps."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._task = task

    def forward(
        self, images_BCHW: Tensor, epoch: int, step: int, piece: Piece
    ) -> Mapping[str, Tensor]:
        return self._task.heads(images_BCHW, epoch, step, piece)


def _newest(out: Path) -> int | None:
    drop_unfinished(out)
    return max(saved_steps(out), default=None)


def create_average(model: nn.Module, recipe: Recipe) -> Any:
    """The weight average: over about the last fifth of the steps so far, until that is as long as
    the recipe's decay reaches (polynomial decay, Shamir and Zhang, arXiv 1212.1824).

    timm's own warm-up would need 4 million steps to get to the paper's 0.99996, which trains for
    375,000; this gets there after 100,000.
    """
    if not recipe.average:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(
        model, decay=recipe.average, use_warmup=True, warmup_gamma=4.0, warmup_power=1.0
    )


def _describe(record: JsonObject, epochs: int) -> str:
    text = f"epoch {record['epoch']}/{epochs}, loss {record['loss']:.3f}"
    for name, value in record.items():
        if name.endswith("_accuracy"):
            which = name.removeprefix("holdout_").removesuffix("_accuracy")
            text += f", {which} {100 * value:.1f} %"
    return f"{text}, {record['images_per_second']:.0f} images/s"
