"""Architecture: one multi-stage vision transformer as a frozen value.

Canonical by construction: a skipped block is `None` and carries no widths, so two architectures
are the same network exactly when they are equal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vitresnas.errors import SpaceError
from vitresnas.files import Fields, JsonObject, digest, read_json, write_json

KIND = "architecture"
EMBEDDING_KINDS = ("convolutional", "linear")


@dataclass(frozen=True)
class Embedding:
    """How patches become tokens.

    `convolutional`: three 3x3 convolutions of `mid_channels` and a strided projection;
    `linear`: one strided convolution (`mid_channels` is then 0).
    """

    kind: str = "convolutional"
    mid_channels: int = 24

    def __post_init__(self) -> None:
        if self.kind not in EMBEDDING_KINDS:
            raise SpaceError(
                f"embedding kind {self.kind!r} is unknown: use one of {', '.join(EMBEDDING_KINDS)}"
            )
        if (self.mid_channels > 0) != (self.kind == "convolutional"):
            raise SpaceError(
                f"a {self.kind} embedding cannot have {self.mid_channels} mid channels: "
                "use 0 for linear, a positive number for convolutional"
            )

    @classmethod
    def from_json(cls, value: object, where: str) -> Embedding:
        fields = Fields(value, where)
        kind = fields.text("kind", choices=EMBEDDING_KINDS)
        mid_channels = fields.integer("mid_channels", minimum=0, default=0)
        fields.done()
        return cls(kind, mid_channels)


@dataclass(frozen=True)
class Block:
    """One transformer block: attention with `heads` heads, then an MLP with `hidden` units."""

    heads: int
    hidden: int

    def __post_init__(self) -> None:
        check_positive("a block", heads=self.heads, hidden=self.hidden)

    @classmethod
    def from_json(cls, value: object, where: str) -> Block | None:
        if value is None:
            return None
        fields = Fields(value, where)
        block = cls(fields.integer("heads"), fields.integer("hidden"))
        fields.done()
        return block


@dataclass(frozen=True)
class Stage:
    """Blocks of one width on one grid; `None` marks a skipped block, the identity."""

    embed: int
    head_dim: int
    blocks: tuple[Block | None, ...]

    def __post_init__(self) -> None:
        check_positive("a stage", embed=self.embed, head_dim=self.head_dim)

    @property
    def kept(self) -> tuple[Block, ...]:
        return tuple(block for block in self.blocks if block is not None)

    @classmethod
    def from_json(cls, value: object, where: str) -> Stage:
        fields = Fields(value, where)
        stage = cls(
            fields.integer("embed"),
            fields.integer("head_dim"),
            fields.items("blocks", Block.from_json),
        )
        fields.done()
        return stage


@dataclass(frozen=True)
class Architecture:
    """A ViT-Res network (ViT-ResNAS, section 3.1): stages joined by residual spatial reductions.

    The grid halves from stage to stage, so `image_size` must be a multiple of `total_reduction`.
    Raises SpaceError for shapes that cannot be built.
    """

    image_size: int
    patch_size: int
    embedding: Embedding
    stages: tuple[Stage, ...]
    classes: int
    prefix_tokens: int = 1
    channels: int = 3

    def __post_init__(self) -> None:
        check_positive(
            "an architecture",
            patch_size=self.patch_size,
            classes=self.classes,
            channels=self.channels,
        )
        if not self.stages:
            raise SpaceError("an architecture needs at least one stage, this one has none")
        if self.prefix_tokens not in (1, 2):
            raise SpaceError(
                f"prefix_tokens is {self.prefix_tokens}: use 1 (class token) or 2 (class and "
                "distillation token)"
            )
        check_image_size(self.image_size, self.patch_size, len(self.stages), self.embedding)
        for narrow, wide in zip(self.stages, self.stages[1:], strict=False):
            if wide.embed < narrow.embed:
                raise SpaceError(
                    f"a stage of {narrow.embed} channels is followed by one of {wide.embed}: "
                    "residual spatial reduction can only keep or widen"
                )

    @property
    def grids(self) -> tuple[int, ...]:
        """Side of the patch grid, stage by stage."""
        first = self.image_size // self.patch_size
        return tuple(first >> index for index in range(len(self.stages)))

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens (patches and prefix), stage by stage."""
        return tuple(grid * grid + self.prefix_tokens for grid in self.grids)

    @property
    def total_reduction(self) -> int:
        """Pixels of the image per cell of the last grid."""
        return self.patch_size << (len(self.stages) - 1)

    @property
    def depth(self) -> int:
        """Blocks that are not skipped."""
        return sum(len(stage.kept) for stage in self.stages)

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that name this network: equal networks, equal ids."""
        return digest(self.to_json())[:12]

    def resized(self, image_size: int) -> Architecture:
        """The same network for another input side."""
        return replace(self, image_size=image_size)

    def positions(self) -> Iterator[tuple[int, int, Block]]:
        """(stage, position in the stage, block) of every block that is not skipped."""
        for stage_index, stage in enumerate(self.stages):
            for position, block in enumerate(stage.blocks):
                if block is not None:
                    yield stage_index, position, block

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object, where: str = "the architecture") -> Architecture:
        """Raises FileFormatError for fields, SpaceError for shapes."""
        fields = Fields(value, where)
        architecture = cls(
            image_size=fields.integer("image_size"),
            patch_size=fields.integer("patch_size"),
            embedding=Embedding.from_json(fields.take("embedding"), f"{where}, embedding"),
            stages=fields.items("stages", Stage.from_json),
            classes=fields.integer("classes"),
            prefix_tokens=fields.integer("prefix_tokens", default=1),
            channels=fields.integer("channels", default=3),
        )
        fields.done()
        return architecture

    def save(self, path: str | Path) -> None:
        write_json(path, KIND, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Architecture:
        with naming(path):
            return cls.from_json(read_json(path, KIND), str(path))

    @classmethod
    def from_network_def(
        cls,
        network_def: Sequence[Any],
        *,
        image_size: int = 224,
        patch_size: int = 14,
        prefix_tokens: int = 1,
        channels: int = 3,
    ) -> Architecture:
        """Read the authors' nested tuple, removed blocks included.

        `((4, C), (1, (C, heads, head_dim), (C, hidden), kept), ..., (3, C_in, C_out), ...,
        (2, C, classes))`; the first number of each item is its kind. Raises SpaceError.
        """
        from vitresnas.space.network_def import parse_network_def  # it builds on this file

        return cls(
            image_size=image_size,
            patch_size=patch_size,
            prefix_tokens=prefix_tokens,
            channels=channels,
            **vars(parse_network_def(network_def)),
        )


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Put the name of the file in front of a complaint about what it describes."""
    try:
        yield
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}") from None


def check_positive(what: str, **values: int) -> None:
    """Raise SpaceError unless every value is at least 1."""
    for name, value in values.items():
        if value < 1:
            raise SpaceError(f"{what} has {name} {value}: it needs at least 1")


def check_image_size(image_size: int, patch_size: int, stages: int, embedding: Embedding) -> None:
    """Raise SpaceError unless the grids of all stages come out whole."""
    if embedding.kind == "convolutional" and patch_size % 2:
        raise SpaceError(f"patch_size is {patch_size}: a convolutional embedding needs an even one")
    reduction = patch_size << (stages - 1)
    if image_size < 1 or image_size % reduction:
        below, above = image_size // reduction * reduction, -(-image_size // reduction) * reduction
        nearest = f"{below} or {above}" if below and above > below else str(max(above, reduction))
        raise SpaceError(
            f"image_size is {image_size}, not a multiple of {reduction} "
            f"(patch {patch_size} and {stages - 1} reductions): use {nearest}"
        )
