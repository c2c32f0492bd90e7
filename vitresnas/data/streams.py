"""Random streams without state: a draw depends on *where* it is used, not on what came before.

Every draw of a training run comes from (seed, what, epoch, index or step), so a resumed run, or one
with another number of workers, sees the same images, mixing and sub-networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def stream(seed: int, *place: str | int) -> int:
    """A seed of 63 bits for one place of use, such as `stream(seed, "order", epoch)`."""
    text = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *place: str | int) -> torch.Generator:
    """A CPU generator of its own for one place of use."""
    return torch.Generator().manual_seed(stream(seed, *place))


@contextlib.contextmanager
def seeded(seed: int, *place: str | int) -> Iterator[None]:
    """Seed the global streams of Python, numpy and torch (CPU) inside, and put them back after.

    For timm's transforms, which draw from all three.
    """
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    here = stream(seed, *place)
    random.seed(here)
    np.random.seed(here % 2**32)
    torch.default_generator.manual_seed(here)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)
