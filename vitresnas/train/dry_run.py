"""A look before training: the model, the schedule, and how long it will take here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from vitresnas.data.load import Data
from vitresnas.doors import say
from vitresnas.files import JsonObject
from vitresnas.progress import duration
from vitresnas.train.memory import device_memory, estimate_memory, gigabytes
from vitresnas.train.path_speeds import PathSpeeds, path_speeds
from vitresnas.train.place import Place
from vitresnas.train.recipe import SUPERNET, Recipe
from vitresnas.train.tasks import Task
from vitresnas.train.timed_steps import step_seconds
from vitresnas.train.trainer import Trainer

TIMED_STEPS = 20
PATIENCE_SECONDS = 10.0  # a slow device is timed by fewer steps
LONG_STEP_SECONDS = 0.5  # larger batches than one of such a step tell nothing new
USABLE_MEMORY = 0.7  # the rest is for what the estimate leaves out


@dataclass(frozen=True)
class DryRun:
    """What a recipe amounts to on this device. MACs are per image and forward pass; memory is that
    of one process, images per second are those of all."""

    recipe: Recipe
    model: str
    parameters: int
    macs_first_epoch: float
    macs_last_epoch: float
    data: str
    training_images: int
    steps_per_epoch: int
    memory_bytes: int
    device_memory_bytes: int
    timed_steps: int
    timed_batch_size: int
    images_per_second: float
    seconds: float
    processes: int = 1
    paths: PathSpeeds = field(default_factory=PathSpeeds)  # where they were compared

    def to_json(self) -> JsonObject:
        return {**asdict(self), "recipe": self.recipe.to_json()}

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        recipe = self.recipe
        groups = f" in {recipe.groups} groups" if recipe.task == SUPERNET else ""
        schedule = (
            f"{recipe.epochs} epochs of {self.steps_per_epoch} steps, batches of "
            f"{recipe.batch_size}{groups}, learning rate {recipe.learning_rate:g}"
        )
        if recipe.warmup_epochs:
            schedule += f" after {recipe.warmup_epochs} epochs of warm-up"
        if recipe.final_learning_rate != recipe.learning_rate:
            schedule += f", then a cosine to {recipe.final_learning_rate:g}"
        memory = (
            f"about {gigabytes(self.memory_bytes)} for weights, optimiser and activations of "
            f"{recipe.batch_size // recipe.accumulation // self.processes} images; this device has "
            f"{gigabytes(self.device_memory_bytes)}"
        )
        if self.memory_bytes > self.device_memory_bytes:
            memory += ": more processes or --accumulation make it smaller"
        timed = f"{self.timed_steps} steps of {self.timed_batch_size} images"
        if self.processes > 1:
            timed += f" on {self.processes} processes"
        paths = self.paths.images_per_second
        return [
            f"model     {self.model}, {self.parameters / 1e6:.2f} M parameters",
            f"MACs      {self.macs_first_epoch / 1e6:.1f} M per image in the first epoch, "
            f"{self.macs_last_epoch / 1e6:.1f} M in the last",
            f"data      {self.data}, {self.training_images} training images",
            f"schedule  {schedule}",
            f"memory    {memory}",
            f"speed     {self.images_per_second:.3g} images/s in the last epochs ({timed})",
            *([f"paths     {self.paths.line(recipe.path)}"] if paths else []),
            f"total     about {duration(self.seconds)}",
        ]


def dry_run(
    recipe: Recipe, data: Data, task: Task, place: Place, *, compare: bool = False
) -> DryRun:
    """Time a few real steps at the last epoch's widths and scale them by MACs to the whole run.

    compare: time a super-network's step by every path. Every process of `place.world` calls this.
    """
    trainer = Trainer(task, data, recipe, place)
    last = recipe.epochs - 1
    memory = estimate_memory(trainer, last)
    available = place.world.told(lambda: device_memory(place))
    usable = USABLE_MEMORY * available
    room = (usable - memory.fixed) / max(1.0, memory.per_image)
    steps, batch_size, images_per_second = _time_steps(trainer, data, last, room)
    compared = compare and recipe.task == SUPERNET
    if compared and place.world.leads:
        say("timing every path")
    paths = path_speeds(trainer, data, last, batch_size, usable) if compared else PathSpeeds()
    work = [task.expected_macs(epoch) for epoch in range(recipe.epochs)]
    images = trainer.loader.steps_per_epoch * recipe.batch_size
    return DryRun(
        recipe=recipe,
        model=task.description,
        parameters=sum(parameter.numel() for parameter in task.model.parameters()),
        macs_first_epoch=work[0],
        macs_last_epoch=work[-1],
        data=data.name,
        training_images=len(data.train),
        steps_per_epoch=trainer.loader.steps_per_epoch,
        memory_bytes=memory.of(recipe.batch_size // trainer.share.pieces),
        device_memory_bytes=available,
        timed_steps=steps,
        timed_batch_size=batch_size,
        images_per_second=images_per_second,
        seconds=sum(work) / work[-1] * images / images_per_second,
        processes=place.world.size,
        paths=paths,
    )


def _time_steps(trainer: Trainer, data: Data, epoch: int, room: float) -> tuple[int, int, float]:
    """Steps that were timed, the images of each, and images per second.

    room: images of one piece that fit into memory. Batches grow from the smallest to the recipe's,
    or as long as a step is short and fits; that also warms the device up.
    """
    recipe, pieces = trainer.recipe, trainer.share.pieces
    largest = min(recipe.batch_size, room * pieces)
    size = min(recipe.batch_size, recipe.parts * pieces)
    if trainer.place.world.leads:
        say(f"timing up to {TIMED_STEPS} steps")

    def run(steps: int) -> list[float]:
        return step_seconds(trainer, data, epoch, size, steps=steps, patience=PATIENCE_SECONDS)

    while True:
        (seconds,) = run(1)
        if seconds > LONG_STEP_SECONDS or size * 4 > largest:
            break
        size *= 4
    if seconds <= LONG_STEP_SECONDS and recipe.batch_size <= largest:
        size = recipe.batch_size
    found = run(TIMED_STEPS)
    return len(found), size, len(found) * size / sum(found)
