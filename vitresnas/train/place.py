"""Where a run happens: device, worker processes, threads. Nothing here changes what is learned."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from vitresnas.data.share import Share
from vitresnas.errors import InputError
from vitresnas.latency.cores import cores, threads
from vitresnas.latency.request import resolve_device
from vitresnas.space import load_space, macs
from vitresnas.train.distributed import ALONE, World
from vitresnas.train.recipe import SUPERNET, Recipe

CHECKPOINT_SECONDS = 15.0
SMALL_STEP_MACS = 3e9


@dataclass(frozen=True)
class Place:
    """Device, processes that decode and augment, and threads where a CPU computes."""

    device: torch.device
    workers: int = 0
    threads: int = 1
    checkpoint_seconds: float = CHECKPOINT_SECONDS  # between checkpoints; 0: after every step
    world: World = ALONE


def choose_place(
    recipe: Recipe,
    device: str = "auto",
    workers: int | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    world: World = ALONE,
) -> Place:
    """What suits this machine. Raises InputError for a device that is not there.

    On a CPU that also computes, workers and threads share the cores; so do the processes of a run.
    """
    chosen = torch.device(resolve_device(world.device(resolve_device(device))))
    if workers is not None and workers < 0:
        raise InputError(f"workers is {workers}: use 0 or more")
    if not checkpoint_seconds >= 0:
        raise InputError(f"checkpoint_seconds is {checkpoint_seconds}: use 0 or more")
    share(recipe, world).check(recipe.batch_size, recipe.parts)
    workers, count = share_cores(
        chosen.type, recipe.batch_size, _image_macs(recipe), workers, world.local_size
    )
    return Place(chosen, workers, count, checkpoint_seconds, world)


def share_cores(
    device_type: str,
    batch_size: int,
    image_macs: int,
    workers: int | None = None,
    processes: int = 1,
) -> tuple[int, int]:
    """Workers, and threads that compute, of each of so many processes on this machine.

    workers: None chooses. A step that is small takes one thread.
    """
    own = max(1, cores() // processes)
    if workers is None:
        workers = min(own - 1, 16) if device_type == "cuda" else own // 4
    return workers, 1 if is_small_step(batch_size, image_macs) else max(1, own - workers)


def share(recipe: Recipe, world: World) -> Share:
    """What this process trains of every batch."""
    return Share(world.rank, world.size, recipe.accumulation)


def threads_of(place: Place) -> AbstractContextManager[None]:
    """Compute with the place's threads inside; what follows in the process gets its own back."""
    return threads(place.threads) if place.device.type == "cpu" else nullcontext()


def is_small_step(batch_size: int, image_macs: int) -> bool:
    """Whether one thread serves a step better than several.

    A step of the digits super-network (64 images, 1.5 G MACs at most) takes 0.21 s with one thread;
    with two, 0.16 s on a quiet machine of 2 cores and more than 2 s on a busy one, where threads
    wait in turns. A step of cifar-nano's (128 images, 6 G MACs) is worth the cores.
    """
    return batch_size * image_macs < SMALL_STEP_MACS


def _image_macs(recipe: Recipe) -> int:
    if recipe.task == SUPERNET:
        return macs(load_space(recipe.space).largest)
    if recipe.foreign:
        return recipe.timm.cost(classes=1).macs
    return macs(recipe.network)
