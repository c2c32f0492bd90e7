"""Which images an epoch shows, and in which order: drawn from the epoch's generator alone.

A *showing* is a whole number v: image v % N of N, for the (v // N + 1)th time in this epoch. All
randomness of a showing is keyed by v, so an image that is shown again is augmented anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitresnas.errors import InputError

SHUFFLED, BALANCED = "shuffled", "balanced"
SAMPLINGS = (SHUFFLED, BALANCED)


def check_sampling(name: str) -> None:
    """Raise InputError for a way of sampling that is not there."""
    if name not in SAMPLINGS:
        raise InputError(f"sampling is {name!r}: use {' or '.join(SAMPLINGS)}")


def showings(sampling: str, labels_N: Tensor, total: int, generator: torch.Generator) -> Tensor:
    """`total` showings of N images, int64 (total,).

    shuffled: every image once, in random order (again and again where `total` exceeds N).
    balanced: every class equally often, to one; inside a class every image equally often, to one.
    """
    if sampling == BALANCED:
        return _balanced(labels_N, total, generator)
    count = len(labels_N)
    return torch.randperm(count, generator=generator)[torch.arange(total) % count]


def _balanced(labels_N: Tensor, total: int, generator: torch.Generator) -> Tensor:
    count, sizes = len(labels_N), torch.bincount(labels_N)
    members = torch.argsort(labels_N, stable=True).split(sizes.tolist())
    present = [images for images in members if len(images)]
    quotas = torch.full((len(present),), total // len(present))
    quotas[torch.randperm(len(present), generator=generator)[: total % len(present)]] += 1
    drawn = []
    for images, quota in zip(present, quotas.tolist(), strict=True):
        order = torch.randperm(len(images), generator=generator)
        times = torch.arange(quota)
        drawn.append(images[order[times % len(images)]] + count * (times // len(images)))
    return torch.cat(drawn)[torch.randperm(total, generator=generator)]
