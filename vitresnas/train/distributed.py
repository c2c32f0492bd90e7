"""Processes that train together: torchrun starts them, DDP adds up their gradients.

Everything here is also right for one process alone, which then talks to nobody.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vitresnas.errors import InputError, VitresnasError
from vitresnas.train.failures import failures_named
from vitresnas.train.meeting import meet

T = TypeVar("T")

_GIVEN_BY_TORCHRUN = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)


@dataclass(frozen=True)
class World:
    """This process among `size` that train one network; `joined` where torchrun started it."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    joined: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and speaks for all."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """Each process of a machine its own GPU. Raises InputError where one is named for all."""
        if not self.joined or not wanted.startswith("cuda"):
            return wanted
        if self.local_size > 1 and wanted != "cuda":
            raise InputError(
                f"device is {wanted} for all {self.local_size} processes of this machine: use "
                "--device cuda, and each takes its own"
            )
        return wanted if wanted != "cuda" else f"cuda:{self.local_rank}"

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, bit for bit the same on each."""
        if self.joined:
            dist.all_reduce(values)
        return values

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process raises it."""
        raised = self.total(torch.tensor(flags, dtype=torch.int))
        return [bool(count) for count in raised.tolist()]

    def together(self, build: Callable[[], T]) -> T:
        """`build()` on every process; where any of them refuses, all end and one says why."""
        if not self.joined:
            return build()
        made: list[T] = []
        refusal: VitresnasError | None = None
        try:
            made.append(build())
        except VitresnasError as error:
            refusal = error
        refused: list[bool] = [False] * self.size
        dist.all_gather_object(refused, refusal is not None)
        if refusal is not None and self.rank == refused.index(True):
            raise refusal
        if any(refused):
            raise SystemExit(VitresnasError.exit_code)
        return made[0]

    def told(self, build: Callable[[], T]) -> T:
        """What the first process builds, on all of them: they may not see the same files yet."""
        made = [self.together(lambda: build() if self.leads else None)]
        if self.joined:
            dist.broadcast_object_list(made, src=0)
        return cast(T, made[0])

    def data_parallel(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module with gradients averaged over all processes after each backward pass."""
        if not self.joined:
            return module
        on = None
        if device.type == "cuda":
            torch.cuda.set_device(device)
            on = [device]
        # Running statistics are the same everywhere already: see batch_norm.py.
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {name: False}
        return DistributedDataParallel(module, device_ids=on, **options)


ALONE = World()


@contextlib.contextmanager
def join() -> Iterator[World]:
    """The processes that torchrun started together, or this one alone.

    Alone too where the processes are joined already, for something else (a search) of which this
    training is one process's part.
    NCCL carries what lies on GPUs, gloo the rest. Raises InputError where only a part of what
    torchrun tells is there; inside, WorkerLost where another process is gone.
    """
    with failures_named():
        if dist.is_initialized() or not _is_one_of_several():
            yield ALONE
            return
        local_rank, local_size = (int(os.environ[name]) for name in _GIVEN_BY_TORCHRUN[2:4])
        store, rank, size = meet()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        try:
            yield World(rank, size, local_rank, local_size, joined=True)
            dist.all_reduce(torch.zeros(()))  # nobody leaves while another one still writes
        except KeyboardInterrupt:  # they stop together
            dist.destroy_process_group()
            raise
        dist.destroy_process_group()


def _is_one_of_several() -> bool:
    missing = [name for name in _GIVEN_BY_TORCHRUN if name not in os.environ]
    if missing and os.environ.get("RANK") and os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(
            f"RANK says that this is process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, "
            f"and {missing[0]} is not set: start the processes with torchrun"
        )
    return not missing


@contextlib.contextmanager
def averaged_once(module: nn.Module, last: bool) -> Iterator[None]:
    """Forward and backward passes inside add to the gradients; only the last one averages them."""
    if last or not isinstance(module, DistributedDataParallel):
        yield
    else:
        with module.no_sync():
            yield
