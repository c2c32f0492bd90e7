"""How much memory a training step needs, counted instead of tried."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from vitresnas.data.share import Piece
from vitresnas.train.place import Place
from vitresnas.train.precision import autocast
from vitresnas.train.trainer import Trainer

OPTIMISER_COPIES = 3  # gradients, and AdamW's two averages


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds for good, and for every image of a turn until its backward pass.

    What operations need for themselves, and gradients of activations, come on top.
    """

    fixed: int
    per_image: float

    def of(self, images: int) -> int:
        return round(self.fixed + images * self.per_image)


def estimate_memory(trainer: Trainer, epoch: int) -> Memory:
    """Count what two small forward passes of `epoch` keep for their backward pass."""
    recipe, model = trainer.recipe, trainer.task.model
    kept = 2 if recipe.average else 1
    weights = _bytes_of(model)
    teacher = getattr(trainer.task, "teacher", None)
    few, more = (_kept_bytes(trainer, epoch, times * recipe.parts) for times in (1, 2))
    return Memory(
        fixed=(kept + OPTIMISER_COPIES) * weights + (_bytes_of(teacher.model) if teacher else 0),
        per_image=max(0, more - few) / recipe.parts,
    )


def _bytes_of(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def device_memory(place: Place) -> int:
    """Bytes of the device, or a process's part of the machine's."""
    if place.device.type == "cuda":
        return int(torch.cuda.get_device_properties(place.device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // place.world.local_size


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count < 1e10 else f"{count / 1e9:.0f} GB"


def _kept_bytes(trainer: Trainer, epoch: int, images: int) -> int:
    side = trainer.holdout.images.shape[-1]
    device = trainer.place.device
    images_BCHW = torch.randn(images, 3, side, side, device=device, dtype=trainer.dtype)
    seen = {p.untyped_storage().data_ptr() for p in trainer.task.model.parameters()}
    kept: list[Tensor] = []  # alive, so that no two of them share an address
    found = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal found
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kept.append(tensor.detach())
            found += storage.nbytes()
        return tensor

    with (
        saved_tensors_hooks(note, lambda tensor: tensor),
        autocast(trainer.recipe.dtype, device),
    ):
        trainer.task.heads(images_BCHW, epoch, 0, Piece())
    return found
