"""The nested tuples in which the authors of ViT-ResNAS write a network down.

    ((4, 176), (1, (176, 3, 32), (176, 704), 1), ..., (3, 176, 352), ..., (2, 704, 1000))

The first number of an item is its kind: 0 linear embedding (0, C), 4 convolutional embedding
(4, C), 5 the same with its own mid channels (5, C, M), 1 a block (1, (C, heads, head dim),
(C, hidden), kept), where kept 0 marks a removed block, 3 a reduction (3, C_in, C_out), and last
2 the head (2, C, classes).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitresnas.errors import SpaceError
from vitresnas.space.architecture import Block, Embedding, Stage

_AUTHORS_MID_CHANNELS = 24
_EMBEDDINGS = (0, 4, 5)


@dataclass(frozen=True)
class NetworkDef:
    """What the tuple says; the image size and the prefix tokens are not in it."""

    embedding: Embedding
    stages: tuple[Stage, ...]
    classes: int


def read_network_def(text: str) -> Sequence[Any]:
    """The tuple from text, as literals only: nothing in it is ever run. Raises SpaceError."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise SpaceError(
            f"the network definition {_shorten(text)!r} is not a nested tuple of numbers: write "
            "it like ((4, 176), (1, (176, 3, 32), (176, 704), 1), ..., (2, 704, 1000))"
        ) from None
    if not isinstance(value, (tuple, list)):
        raise SpaceError(f"the network definition is {value!r}, expected a nested tuple")
    return value


def parse_network_def(network_def: Sequence[Any]) -> NetworkDef:
    """Read the tuple, removed blocks included; each complaint names the item."""
    reader = _Reader()
    for index, item in enumerate(network_def):
        try:
            reader.read(tuple(item))
        except SpaceError as error:
            raise SpaceError(f"network definition, item {index}, {item!r}: {error}") from None
        except (TypeError, ValueError):
            raise SpaceError(
                f"network definition, item {index}, {item!r}: it is not a tuple of whole numbers"
            ) from None
    if reader.embedding is None or reader.classes is None:
        raise SpaceError(
            "a network definition begins with an embedding (0, C), (4, C) or (5, C, M) "
            "and ends with a head (2, C, classes)"
        )
    return NetworkDef(reader.embedding, tuple(reader.stages), reader.classes)


class _Reader:
    """Walks the items and keeps the width that the tokens have at that point."""

    def __init__(self) -> None:
        self.embedding: Embedding | None = None
        self.classes: int | None = None
        self.stages: list[Stage] = []
        self._width = 0
        self._blocks: list[Block | None] = []
        self._head_dims: set[int] = set()

    def read(self, item: tuple[Any, ...]) -> None:
        if (item[:1] in [(kind,) for kind in _EMBEDDINGS]) != (self.embedding is None):
            raise SpaceError("an embedding (0, C), (4, C) or (5, C, M) belongs first, and once")
        if self.classes is not None:
            raise SpaceError("nothing may follow the head")
        match item:
            case (0, width):
                self._begin(Embedding("linear", 0), width)
            case (4, width):
                self._begin(Embedding("convolutional", _AUTHORS_MID_CHANNELS), width)
            case (5, width, mid_channels):
                self._begin(Embedding("convolutional", _whole(mid_channels)), width)
            case (1, (c_attention, heads, head_dim), (c_mlp, hidden), kept):
                self._expect_width(c_attention, c_mlp)
                self._head_dims.add(_whole(head_dim))
                block = Block(_whole(heads), _whole(hidden))
                self._blocks.append(block if _whole(kept) else None)
            case (3, c_in, c_out):
                self._expect_width(c_in)
                self._close_stage()
                self._width = _whole(c_out)
            case (2, c_in, classes):
                self._expect_width(c_in)
                self._close_stage()
                self.classes = _whole(classes)
            case _:
                raise SpaceError("it has no known kind and shape")

    def _begin(self, embedding: Embedding, width: object) -> None:
        self.embedding, self._width = embedding, _whole(width)

    def _expect_width(self, *found: object) -> None:
        for width in found:
            if width != self._width:
                raise SpaceError(f"it has width {width} where the tokens have {self._width}")

    def _close_stage(self) -> None:
        number = len(self.stages) + 1
        if len(self._head_dims) != 1:
            found = ", ".join(map(str, sorted(self._head_dims))) or "none (it has no blocks)"
            raise SpaceError(f"stage {number} ends here with head dims {found}, expected one")
        self.stages.append(Stage(self._width, self._head_dims.pop(), tuple(self._blocks)))
        self._blocks.clear()


def _whole(value: object) -> int:
    if not isinstance(value, int):  # True and False are whole numbers too: kept or removed
        raise TypeError
    return int(value)


def _shorten(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
