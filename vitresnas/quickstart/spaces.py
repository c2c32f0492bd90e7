"""The spaces that images of a size could be searched in, from the cheapest to the richest."""

from __future__ import annotations

from dataclasses import replace

from vitresnas.space import SPACES, SearchSpace, derive_space, macs

SIDES = (16, 32, 48, 64, 96, 128, 160, 192, 224)
_NARROW_UP_TO = 96  # pixels; a grid of 8x8 patches sees little of larger images


def candidates(side: int, classes: int) -> tuple[SearchSpace, ...]:
    """By MACs of the largest network, for sides up to the images' own (16 for smaller ones).

    Each side comes as `vitresnas space derive` makes it and, for small images, narrow: the widths
    of `digits` on an 8x8 grid, an eighth of the work.
    """
    found = []
    for size in (16, *(size for size in SIDES if 16 < size <= side)):
        found.append(derive_space(size, classes))
        if 16 < size <= _NARROW_UP_TO:
            narrow = replace(
                SPACES["cifar-nano"],
                name=f"narrow-{size}",
                image_size=size,
                patch_size=size // 8,
                classes=classes,
            )
            found.append(narrow)
    return tuple(sorted(found, key=lambda space: macs(space.largest)))
