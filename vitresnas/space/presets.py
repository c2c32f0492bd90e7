"""Spaces and networks by name; spaces derived from an image size.

`tiny`, `small` and the three networks are the paper's (ViT-ResNAS, section 4 and appendix);
`digits`, `cifar-nano` and `cifar` are ours, by the same rules, for small images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitresnas.errors import InputError, SpaceError
from vitresnas.space.architecture import Architecture, Block, Embedding, Stage
from vitresnas.space.search_space import SearchSpace, StageChoices


def _down(largest: int, smallest: int, step: int) -> tuple[int, ...]:
    return tuple(range(largest, smallest - 1, -step))


def _stage(
    embed: Sequence[int], head_dim: int, heads: Sequence[int], hidden: Sequence[int], blocks: int
) -> StageChoices:
    skippable = tuple(range(2, blocks + 1, 2))
    return StageChoices(tuple(embed), head_dim, blocks, tuple(heads), tuple(hidden), skippable)


_TINY_STAGES = (
    _stage((256, 224, 192, 176, 160), 32, (6, 5, 4, 3), _down(768, 384, 64), 6),
    _stage((512, 448, 384, 352, 320), 48, (12, 10, 8, 6), _down(1536, 768, 128), 6),
    _stage((1024, 896, 768, 704, 640), 64, (12, 10, 8, 6), _down(3072, 1536, 256), 6),
)
_SMALL_STAGES = (
    _stage((320, 280, 240, 220, 200), 32, (8, 7, 6, 5), _down(960, 480, 80), 7),
    _stage((640, 560, 480, 440, 400), 48, (16, 14, 12, 10), _down(1920, 960, 160), 7),
    _stage((1280, 1120, 960, 880, 800), 64, (16, 14, 12, 10), _down(3840, 1920, 320), 7),
)
_DIGITS_STAGES = (
    _stage((64, 56, 48, 40, 32), 16, (4, 3, 2), _down(256, 64, 64), 4),
    _stage((128, 112, 96, 80, 64), 16, (8, 6, 4), _down(512, 128, 128), 4),
    _stage((256, 224, 192, 160, 128), 32, (8, 6, 4), _down(1024, 256, 256), 4),
)
_CIFAR_STAGES = (
    _stage((128, 112, 96, 88, 80), 32, (4, 3, 2), _down(384, 192, 64), 6),
    _stage((256, 224, 192, 176, 160), 48, (6, 5, 4, 3), _down(768, 384, 128), 6),
    _stage((512, 448, 384, 352, 320), 64, (8, 6, 5, 4), _down(1536, 768, 256), 6),
)

_CONVOLUTIONAL_16 = Embedding("convolutional", 16)
_CONVOLUTIONAL_24 = Embedding("convolutional", 24)

SPACES: dict[str, SearchSpace] = {
    space.name: space
    for space in (
        SearchSpace("digits", 16, 2, _CONVOLUTIONAL_16, _DIGITS_STAGES, classes=10),
        SearchSpace("cifar-nano", 32, 4, _CONVOLUTIONAL_16, _DIGITS_STAGES, classes=10),
        SearchSpace("cifar", 32, 2, _CONVOLUTIONAL_24, _CIFAR_STAGES, classes=10),
        SearchSpace("tiny", 224, 14, _CONVOLUTIONAL_24, _TINY_STAGES, classes=1000),
        SearchSpace("small", 224, 14, _CONVOLUTIONAL_24, _SMALL_STAGES, classes=1000),
    )
}


def _network(*stages: tuple[int, int, str]) -> Architecture:
    """A published network; blocks are written as in the paper's tables, "heads/hidden ..."."""

    def blocks(text: str) -> tuple[Block | None, ...]:
        return tuple(Block(*map(int, pair.split("/"))) for pair in text.split())

    return Architecture(
        image_size=224,
        patch_size=14,
        embedding=_CONVOLUTIONAL_24,
        stages=tuple(Stage(embed, head_dim, blocks(text)) for embed, head_dim, text in stages),
        classes=1000,
    )


NETWORKS: dict[str, Architecture] = {
    "tiny": _network(
        (176, 32, "3/704 3/576 3/640 4/576 4/704"),
        (352, 48, "10/1408 8/1408 8/1280 8/1408 10/1280 10/1024"),
        (704, 64, "10/2560 10/1792 10/2816 8/2816 8/2560"),
    ),
    "small": _network(
        (220, 32, "5/880 5/880 7/800 5/720 5/720 5/720"),
        (440, 48, "10/1760 10/1440 10/1920 10/1600 12/1600 12/1440"),
        (880, 64, "16/3200 12/3200 16/2880 12/2240 14/2560"),
    ),
    "medium": _network(
        (240, 32, "7/960 6/960 7/800 8/960 7/880 8/880 6/800"),
        (640, 48, "10/1120 14/1760 14/1920 16/1760 14/1440 16/1760 16/1920"),
        (880, 64, "16/3200 10/3840 16/3840 12/3200 16/3520 14/3520"),
    ),
}


def load_space(name_or_path: str | Path) -> SearchSpace:
    """A preset by name, or the user's own space from a JSON file. Raises InputError."""
    if str(name_or_path) in SPACES:
        return SPACES[str(name_or_path)]
    if Path(name_or_path).suffix == ".json" or Path(name_or_path).exists():
        return SearchSpace.load(name_or_path)
    raise InputError(
        f"there is no space {str(name_or_path)!r}: use {', '.join(SPACES)}, "
        "or a file that `vitresnas space derive` wrote"
    )


def load_architecture(spec: str | Path) -> Architecture:
    """An architecture by what a user types.

    A published network (`tiny`, `small`, `medium`), an end of a space (`digits:largest`,
    `tiny:smallest`), an architecture file, or a directory that holds one. Raises InputError.
    """
    text = str(spec)
    if text.removeprefix("vitresnas_") in NETWORKS:
        return NETWORKS[text.removeprefix("vitresnas_")]
    space, colon, end = text.rpartition(":")
    if colon and end in ("largest", "smallest"):
        chosen = load_space(space)
        return chosen.largest if end == "largest" else chosen.smallest
    path = Path(spec)
    if path.is_dir():
        return Architecture.load(path / "architecture.json")
    if path.suffix == ".json" or path.exists():
        return Architecture.load(path)
    raise InputError(
        f"there is no architecture {text!r}: use {', '.join(NETWORKS)}, SPACE:largest, "
        "SPACE:smallest, an architecture.json, or a directory that holds one"
    )


def derive_space(image_size: int, classes: int, *, name: str | None = None) -> SearchSpace:
    """A space for other images: the patch size that comes closest to the paper's 16x16 grid.

    Widths follow the image: digits' up to 16 pixels, cifar's up to 128, tiny's above.
    Raises SpaceError, naming the nearest sizes, where no even patch gives three whole grids.
    """
    if classes < 2:
        raise SpaceError(f"classes is {classes}: a classifier needs at least 2")
    patch_size = _derive_patch_size(image_size)
    stages = SPACES[like(image_size)].stages
    embedding = _CONVOLUTIONAL_16 if image_size <= 16 else _CONVOLUTIONAL_24
    name = name or f"derived-{image_size}"
    return SearchSpace(name, image_size, patch_size, embedding, stages, classes=classes)


def like(image_size: int) -> str:
    """The space by name whose widths, and ways to train, suit images of so many pixels a side."""
    return "digits" if image_size <= 16 else "cifar" if image_size <= 128 else "tiny"


def _derive_patch_size(image_size: int) -> int:
    # Three stages need a first grid that is a multiple of 4; past 32x32 attention costs too much.
    if image_size < 8:
        raise SpaceError(f"image_size is {image_size}: use at least 8 pixels")
    fitting = [
        (abs(grid - 16), -grid, image_size // grid)
        for grid in range(4, 33, 4)
        if image_size % grid == 0 and image_size // grid % 2 == 0
    ]
    if not fitting:
        below = image_size // 8 * 8
        raise SpaceError(
            f"no even patch divides images of {image_size} pixels into grids of three stages: "
            f"use a multiple of 8 such as {below} or {below + 8}, best a multiple of 32"
        )
    return min(fitting)[2]
