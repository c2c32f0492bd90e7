"""Who trains which part of a batch: processes side by side, turns one after another.

A batch of B images is cut into processes x turns equal pieces, in order. In turn t, process r takes
piece t * processes + r; what a turn sees altogether is then the same for any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from vitresnas.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Piece `index` of a batch cut into `pieces`."""

    index: int = 0
    pieces: int = 1

    def of(self, groups: Sequence[T]) -> Sequence[T]:
        """Of what the groups of a batch have, that of the piece: some groups, or a part of one."""
        if len(groups) >= self.pieces:
            each = len(groups) // self.pieces
            return groups[self.index * each : (self.index + 1) * each]
        one = self.index * len(groups) // self.pieces
        return groups[one : one + 1]


@dataclass(frozen=True)
class Share:
    """What process `rank` of `processes` trains; gradients of `turns` add up to one update."""

    rank: int = 0
    processes: int = 1
    turns: int = 1

    @property
    def pieces(self) -> int:
        return self.processes * self.turns

    def piece(self, turn: int) -> Piece:
        return Piece(turn * self.processes + self.rank, self.pieces)

    def of_batch(self, batch_B: Tensor) -> Tensor:
        """This process's images of a batch, turn by turn: (B,) to (B / processes,)."""
        return batch_B.view(self.turns, self.processes, -1)[:, self.rank].flatten()

    def stream(self, step: int) -> int:
        """A number for the random draws of this process in this step; alone it is the step."""
        return step * self.processes + self.rank

    def groups(self, groups: int) -> int:
        """Into how many equal groups, or parts of one, this process's images of a batch fall."""
        return self.turns * max(1, groups // self.pieces)

    def check(self, batch_size: int, groups: int) -> None:
        """Raise InputError where batch or groups cannot be cut into equal pieces."""
        how = f"{self.processes} processes"
        if self.turns > 1:
            how += f" times {self.turns} turns of accumulation"
        if batch_size % self.pieces:
            raise InputError(
                f"a batch of {batch_size} cannot be divided equally over {how}: "
                f"use a --batch-size that is a multiple of {self.pieces}, or another number of "
                "processes or turns"
            )
        if groups % self.pieces and self.pieces % groups:
            raise InputError(
                f"{groups} groups of sub-networks cannot be divided equally over {how}: "
                f"use a number that divides {groups} or is a multiple of it"
            )


WHOLE = Share()
