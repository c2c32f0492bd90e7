"""Which sub-networks a training step runs: near-balanced draws and progressive widening
(ViT-ResNAS, section 3.3 and appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from vitresnas.space.architecture import Architecture, Block
from vitresnas.space.search_space import SearchSpace

T = TypeVar("T")

# Skipping opens by the formula that opens widths; listed twice it ends at probability 1/2.
SKIP_CHOICES = (False, False, True, True)


def draw_architectures(
    space: SearchSpace,
    groups: int,
    rng: Random,
    *,
    epoch: int = 0,
    widening_epochs: int = 0,
) -> tuple[Architecture, ...]:
    """One sub-network per group of the batch.

    Every choice is drawn on its own, near-balanced over the groups, among those open at `epoch`;
    each group's network is then a uniform draw of the open space. From `widening_epochs` on
    everything is open; the default opens everything at once.
    """

    def columns(choices: Sequence[T]) -> list[T]:
        return draw_balanced(open_choices(choices, epoch, widening_epochs), groups, rng)

    embeds = [columns(stage.embed) for stage in space.stages]
    skips = [[columns(SKIP_CHOICES) for _ in range(stage.blocks)] for stage in space.stages]
    heads = [[columns(stage.heads) for _ in range(stage.blocks)] for stage in space.stages]
    hidden = [[columns(stage.hidden) for _ in range(stage.blocks)] for stage in space.stages]

    def group_architecture(group: int) -> Architecture:
        return space.assemble(
            lambda stage, _: embeds[stage][group],
            lambda stage, position: skips[stage][position][group],
            lambda stage, _, position: Block(
                heads[stage][position][group], hidden[stage][position][group]
            ),
        )

    return tuple(group_architecture(group) for group in range(groups))


def open_choices(choices: Sequence[T], epoch: int, widening_epochs: int) -> Sequence[T]:
    """The first choices, largest first, that may be drawn at `epoch`."""
    if epoch >= widening_epochs:
        return choices
    return choices[: min(len(choices), 1 + epoch * (len(choices) - 1) // widening_epochs)]


def draw_balanced(choices: Sequence[T], groups: int, rng: Random) -> list[T]:
    """One choice per group: as many copies of the list as are needed, shuffled, the first ones."""
    deck = list(choices) * -(-groups // len(choices))
    rng.shuffle(deck)
    return deck[:groups]
