"""Hand-designed networks at any size: DeiT's and PiT's shapes, for the images of a space.

Both cut images into patches as large as the space's, as many as DeiT has at 224 pixels (16 a side
where the paper's spaces have 16, DeiT 14); widths and depth are free, all else is their papers'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from vitresnas.models.timm_sized import TimmNetwork
from vitresnas.space import SearchSpace

DEPTHS = (6, 7, 8, 9, 10, 11, 12)  # 12 is what both papers use
_PIT_DEPTHS = {  # by their sum, as near to PiT's 2:6:4 as whole blocks come
    **{6: (1, 3, 2), 7: (1, 4, 2), 8: (1, 4, 3), 9: (2, 4, 3)},
    **{10: (2, 5, 3), 11: (2, 5, 4), 12: (2, 6, 4)},
}
_HEAD_STEPS = 4  # of the width of a head, in the space's own
_HEAD_RANGE = (0.75, 1.5)  # of the space's own width of a head


@dataclass(frozen=True)
class Width:
    """Channels of the first stage: `heads` of `head_dim` each."""

    heads: int
    head_dim: int

    @property
    def channels(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True)
class Shape:
    """channels: of the first stage."""

    depth: int
    channels: int
    network: TimmNetwork


@dataclass(frozen=True)
class Family:
    """A design whose width and depth are free."""

    name: str
    what: str
    build: Callable[[SearchSpace, Width, int], TimmNetwork]
    widest: float  # first stage, of the width of the space's last stage

    def shapes(self, space: SearchSpace) -> Iterator[tuple[Shape, ...]]:
        """By depth, each tuple from narrow to wide, so from fast to slow."""
        most = self.widest * space.largest.stages[-1].embed
        for depth in DEPTHS:
            yield tuple(
                Shape(depth, width.channels, self.build(space, width, depth))
                for width in widths(space, most)
            )


def widths(space: SearchSpace, most: float) -> list[Width]:
    """Every width up to `most` whose heads are about as wide as the space's, narrow to wide."""
    usual = space.largest.stages[0].head_dim
    least, largest = (round(usual * share) for share in _HEAD_RANGE)
    by_channels: dict[int, Width] = {}
    for head_dim in range(least, largest + 1, max(1, usual // _HEAD_STEPS)):
        for heads in range(1, int(most) // head_dim + 1):
            width = Width(heads, head_dim)
            other = by_channels.setdefault(width.channels, width)
            if abs(head_dim - usual) < abs(other.head_dim - usual):
                by_channels[width.channels] = width
    return [by_channels[channels] for channels in sorted(by_channels)]


def _deit(space: SearchSpace, width: Width, depth: int, patches: int = 1) -> TimmNetwork:
    options = {
        "patch_size": patches * space.patch_size,
        "embed_dim": width.channels,
        "num_heads": width.heads,
        "depth": depth,
    }
    return TimmNetwork("deit_tiny_patch16_224", space.image_size, options)


def _pit(space: SearchSpace, width: Width, depth: int) -> TimmNetwork:
    options = {
        # PiT's patches overlap by half.
        "patch_size": 2 * space.patch_size,
        "stride": space.patch_size,
        "base_dims": [width.head_dim] * 3,
        "heads": [width.heads, 2 * width.heads, 4 * width.heads],
        "depth": list(_PIT_DEPTHS[depth]),
    }
    return TimmNetwork("pit_ti_224", space.image_size, options)


USUAL = ("deit", "pit")
FAMILIES = {
    family.name: family
    for family in (
        Family(
            "deit",
            "DeiT-like (arXiv 2012.12877): one width, one number of heads, no reduction",
            _deit,
            1.0,
        ),
        Family(
            "deit-coarse",
            "DeiT-like, on patches twice as wide: a quarter of the tokens",
            partial(_deit, patches=2),
            1.0,
        ),
        Family(
            "pit",
            "PiT-like (arXiv 2103.16302): three stages, pooled between, twice as wide each",
            _pit,
            0.5,
        ),
    )
}
