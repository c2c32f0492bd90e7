"""Samplers by name: which networks a step of a super-network trains, and on which images.

All train through the same group-wise pass; they differ in the networks that they draw, in whether
these share their images, and in who teaches them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from vitresnas.errors import InputError
from vitresnas.space.architecture import Architecture, Block
from vitresnas.space.search_space import SearchSpace
from vitresnas.supernet.sampling import SKIP_CHOICES, T, draw_architectures, open_choices

Draw = Callable[..., tuple[Architecture, ...]]  # called like `draw_architectures`


@dataclass(frozen=True)
class Sampler:
    """How the networks of a training step are drawn.

    shares_images: whether every network sees every image of the batch, and all but the first one
    learn from the first one's answers; else each network has a part of the batch, with labels.
    """

    name: str
    source: str
    draw_networks: Draw
    least: int = 1  # networks per step
    most: int | None = None
    shares_images: bool = False

    def draw(
        self, space: SearchSpace, groups: int, rng: Random, *, epoch: int, widening_epochs: int
    ) -> tuple[Architecture, ...]:
        """The networks of one step, `groups` of them or as many as the sampler runs at most."""
        groups = min(groups, self.most or groups)
        return self.draw_networks(space, groups, rng, epoch=epoch, widening_epochs=widening_epochs)

    def parts(self, groups: int) -> int:
        """Into how many equal parts, each of its own networks, the images of a batch fall."""
        return 1 if self.shares_images else min(groups, self.most or groups)

    def check(self, groups: int) -> None:
        """Raise InputError for fewer groups than the sampler needs."""
        if groups < self.least:
            raise InputError(
                f"groups is {groups}: the sampler {self.name} runs at least {self.least} networks "
                "per step, give --groups"
            )


def _sandwich(
    space: SearchSpace, groups: int, rng: Random, *, epoch: int, widening_epochs: int
) -> tuple[Architecture, ...]:
    def narrowest(choices: Sequence[T]) -> T:
        return open_choices(choices, epoch, widening_epochs)[-1]

    smallest = space.assemble(
        lambda _, stage: narrowest(stage.embed),
        lambda *_: narrowest(SKIP_CHOICES),
        lambda _, stage, __: Block(narrowest(stage.heads), narrowest(stage.hidden)),
    )
    between = draw_architectures(
        space, groups - 2, rng, epoch=epoch, widening_epochs=widening_epochs
    )
    return (space.largest, *between, smallest)


MULTI_ARCHITECTURE = Sampler(
    "multi-architecture",
    "Liao, Karaman, Sze: Searching for Efficient Multi-Stage Vision Transformers, "
    "arXiv 2109.00642, section 3.3",
    draw_architectures,
)
SINGLE_ARCHITECTURE = Sampler(
    "single-architecture",
    "Guo et al.: Single Path One-Shot Neural Architecture Search with Uniform Sampling, "
    "arXiv 1904.00420",
    draw_architectures,
    most=1,
)
SANDWICH = Sampler(
    "sandwich",
    "Yu, Huang: Universally Slimmable Networks and Improved Training Techniques, arXiv 1903.05134; "
    "Yu et al.: BigNAS, arXiv 2003.11142",
    _sandwich,
    least=2,
    shares_images=True,
)
SAMPLERS = {one.name: one for one in (MULTI_ARCHITECTURE, SINGLE_ARCHITECTURE, SANDWICH)}


def load_sampler(name: str) -> Sampler:
    """A sampler by name. Raises InputError listing the names."""
    if name not in SAMPLERS:
        raise InputError(f"there is no sampler {name!r}: use {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
