"""SearchSpace: the choices, and how to draw, change and mix architectures within them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from random import Random

from vitresnas.errors import SpaceError
from vitresnas.files import Fields, JsonObject, digest, read_json, write_json
from vitresnas.space.architecture import (
    Architecture,
    Block,
    Embedding,
    Stage,
    check_positive,
    naming,
)
from vitresnas.space.operations import Operation, operations

KIND = "search_space"
SKIP_PROBABILITY = 0.5


@dataclass(frozen=True)
class StageChoices:
    """What one stage may be: a width for all its blocks, heads and hidden units block by block.

    Each list of choices runs from the largest down. `skippable` holds the positions, counted from
    1 as in the paper, of blocks that may be left out.
    """

    embed: tuple[int, ...]
    head_dim: int
    blocks: int
    heads: tuple[int, ...]
    hidden: tuple[int, ...]
    skippable: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_positive("a stage", head_dim=self.head_dim, blocks=self.blocks)
        for name in ("embed", "heads", "hidden"):
            choices = getattr(self, name)
            if not choices or list(choices) != sorted(set(choices), reverse=True):
                raise SpaceError(
                    f"{name} choices are {list(choices)}: list each once, from the largest down"
                )
            check_positive("a stage", **{f"{name} choice": min(choices)})
        # One order, so that equal spaces have equal ids.
        if list(self.skippable) != sorted(set(self.skippable) & set(range(1, self.blocks + 1))):
            raise SpaceError(
                f"skippable positions are {list(self.skippable)}: "
                f"list each once, ascending, counted from 1 to {self.blocks}"
            )

    def may_skip(self, position: int) -> bool:
        """Whether the block at `position` (counted from 0) may be left out."""
        return position + 1 in self.skippable

    @classmethod
    def from_json(cls, value: object, where: str) -> StageChoices:
        fields = Fields(value, where)
        stage = cls(
            embed=fields.integers("embed"),
            head_dim=fields.integer("head_dim"),
            blocks=fields.integer("blocks"),
            heads=fields.integers("heads"),
            hidden=fields.integers("hidden"),
            skippable=fields.integers("skippable", default=()),
        )
        fields.done()
        return stage


@dataclass(frozen=True)
class SearchSpace:
    """A frozen set of architectures (ViT-ResNAS, section 3.3).

    Every draw uses the `random.Random` handed in and nothing else.
    """

    name: str
    image_size: int
    patch_size: int
    embedding: Embedding
    stages: tuple[StageChoices, ...]
    classes: int
    prefix_tokens: int = 1
    channels: int = 3

    def __post_init__(self) -> None:
        if not self.stages:
            raise SpaceError(f"space {self.name} has no stages: give it at least one")
        for narrow, wide in zip(self.stages, self.stages[1:], strict=False):
            if max(narrow.embed) > min(wide.embed):
                raise SpaceError(
                    f"space {self.name}: a stage of up to {max(narrow.embed)} channels is followed "
                    f"by one of {min(wide.embed)}: each stage must be at least as wide as the last"
                )
        _ = self.largest  # an impossible image size is found here, not in the middle of a search

    # What it holds

    @cached_property
    def largest(self) -> Architecture:
        """Every width at its largest, nothing skipped."""
        return self._uniform(0, skip=False)

    @cached_property
    def smallest(self) -> Architecture:
        """Every width at its smallest, everything skippable skipped."""
        return self._uniform(-1, skip=True)

    @cached_property
    def size(self) -> int:
        """How many distinct networks there are."""
        total = 1
        for stage in self.stages:
            total *= len(stage.embed) * _count_block_patterns(stage)
        return total

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of the choices; the name does not count."""
        return digest({**self.to_json(), "name": ""})[:12]

    def __contains__(self, architecture: object) -> bool:
        return isinstance(architecture, Architecture) and self.reason_outside(architecture) is None

    def reason_outside(self, architecture: Architecture) -> str | None:
        """Why an architecture does not belong here, as half a sentence; None if it does."""
        for name in ("image_size", "patch_size", "embedding", "classes", "prefix_tokens"):
            ours, theirs = getattr(self, name), getattr(architecture, name)
            if ours != theirs:
                return f"its {name} is {theirs}, the space has {ours}"
        if self.channels != architecture.channels:
            return f"it reads {architecture.channels} channels, the space {self.channels}"
        if len(self.stages) != len(architecture.stages):
            return f"it has {len(architecture.stages)} stages, the space {len(self.stages)}"
        for number, (choices, stage) in enumerate(
            zip(self.stages, architecture.stages, strict=True), start=1
        ):
            reason = _stage_reason(choices, stage)
            if reason:
                return f"stage {number}: {reason}"
        return None

    def operations(self) -> tuple[Operation, ...]:
        """Every distinct piece that any network here is made of, in a stable order."""
        found: dict[Operation, None] = {}
        # One thin network per pair of neighbouring widths meets every embedding, reduction and
        # head; one per (width, heads, hidden) meets every half block.
        for index, choices in enumerate(self.stages):
            neighbours = self.stages[index - 1].embed if index else (0,)
            for before, embed in product(neighbours, choices.embed):
                pairs = _covering_pairs(choices.heads, choices.hidden)
                for heads, hidden in pairs:
                    blocks: tuple[Block | None, ...] = (Block(heads, hidden),)
                    stages = list(self.largest.stages)
                    stages[index] = Stage(embed, choices.head_dim, blocks)
                    if index:
                        stages[index - 1] = replace(stages[index - 1], embed=before)
                    found.update(
                        dict.fromkeys(operations(replace(self.largest, stages=tuple(stages))))
                    )
        return tuple(sorted(found, key=lambda operation: (operation.kind, str(operation))))

    # Drawing and changing

    def sample(self, rng: Random) -> Architecture:
        """Each choice uniformly; a skippable block is skipped with probability 1/2."""
        return self.assemble(
            lambda _, choices: rng.choice(choices.embed),
            lambda *_: rng.random() < SKIP_PROBABILITY,
            lambda _, choices, __: Block(rng.choice(choices.heads), rng.choice(choices.hidden)),
        )

    def mutate(self, architecture: Architecture, rng: Random, probability: float) -> Architecture:
        """Resample each choice with `probability`; a skippable block flips with it."""

        def maybe(old: int, choices: Sequence[int]) -> int:
            return rng.choice(choices) if rng.random() < probability else old

        def skip(stage: int, position: int) -> bool:
            skipped = architecture.stages[stage].blocks[position] is None
            return skipped != (rng.random() < probability)

        def block(stage: int, choices: StageChoices, position: int) -> Block:
            old = architecture.stages[stage].blocks[position]
            if old is None:
                return Block(rng.choice(choices.heads), rng.choice(choices.hidden))
            return Block(maybe(old.heads, choices.heads), maybe(old.hidden, choices.hidden))

        return self.assemble(
            lambda stage, choices: maybe(architecture.stages[stage].embed, choices.embed),
            skip,
            block,
        )

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """Take each choice from either parent with probability 1/2."""
        parents = (a, b)

        def block(stage: int, _: StageChoices, position: int) -> Block:
            present = [
                found for parent in parents if (found := parent.stages[stage].blocks[position])
            ]
            return Block(rng.choice(present).heads, rng.choice(present).hidden)

        return self.assemble(
            lambda stage, _: rng.choice(parents).stages[stage].embed,
            lambda stage, position: rng.choice(parents).stages[stage].blocks[position] is None,
            block,
        )

    def with_data(self, *, classes: int, image_size: int | None = None) -> SearchSpace:
        """The same choices for other images."""
        return replace(self, classes=classes, image_size=image_size or self.image_size)

    def _uniform(self, index: int, *, skip: bool) -> Architecture:
        return self.assemble(
            lambda _, choices: choices.embed[index],
            lambda *_: skip,
            lambda _, choices, __: Block(choices.heads[index], choices.hidden[index]),
        )

    def assemble(
        self,
        embed: Callable[[int, StageChoices], int],
        skip: Callable[[int, int], bool],
        block: Callable[[int, StageChoices, int], Block],
    ) -> Architecture:
        """Build an architecture from three answers; stages and positions count from 0.

        `embed(stage, choices)`, `skip(stage, position)` of blocks that may be skipped, and
        `block(stage, choices, position)` of those that stay.
        """
        stages = []
        for index, choices in enumerate(self.stages):
            width = embed(index, choices)
            blocks: list[Block | None] = []
            for position in range(choices.blocks):
                # A skipped block takes a directly following skippable one with it.
                follows = position > 0 and blocks[-1] is None
                wanted = choices.may_skip(position) and skip(index, position)
                skipped = wanted or (follows and choices.may_skip(position))
                blocks.append(None if skipped else block(index, choices, position))
            stages.append(Stage(width, choices.head_dim, tuple(blocks)))
        return Architecture(
            image_size=self.image_size,
            patch_size=self.patch_size,
            embedding=self.embedding,
            stages=tuple(stages),
            classes=self.classes,
            prefix_tokens=self.prefix_tokens,
            channels=self.channels,
        )

    # Files

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object, where: str = "the space") -> SearchSpace:
        """Raises FileFormatError for fields, SpaceError for choices that contradict each other."""
        fields = Fields(value, where)
        space = cls(
            name=fields.text("name"),
            image_size=fields.integer("image_size"),
            patch_size=fields.integer("patch_size"),
            embedding=Embedding.from_json(fields.take("embedding"), f"{where}, embedding"),
            stages=fields.items("stages", StageChoices.from_json),
            classes=fields.integer("classes"),
            prefix_tokens=fields.integer("prefix_tokens", default=1),
            channels=fields.integer("channels", default=3),
        )
        fields.done()
        return space

    def save(self, path: str | Path) -> None:
        write_json(path, KIND, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> SearchSpace:
        with naming(path):
            return cls.from_json(read_json(path, KIND), str(path))


def _covering_pairs(heads: Sequence[int], hidden: Sequence[int]) -> list[tuple[int, int]]:
    """The fewest pairs in which every element of both lists appears."""
    longest = max(len(heads), len(hidden))
    return [(heads[i % len(heads)], hidden[i % len(hidden)]) for i in range(longest)]


def _stage_reason(choices: StageChoices, stage: Stage) -> str | None:
    if stage.embed not in choices.embed:
        return f"width {stage.embed} is not among {list(choices.embed)}"
    if stage.head_dim != choices.head_dim:
        return f"its head dim is {stage.head_dim}, the space has {choices.head_dim}"
    if len(stage.blocks) != choices.blocks:
        return f"it has {len(stage.blocks)} block positions, the space has {choices.blocks}"
    for position, block in enumerate(stage.blocks):
        follows = position > 0 and stage.blocks[position - 1] is None
        if block is None:
            if not choices.may_skip(position):
                return f"block {position + 1} is skipped and may not be"
        elif follows and choices.may_skip(position):
            return f"block {position + 1} must be skipped because the one before it is"
        elif block.heads not in choices.heads:
            return f"block {position + 1}: {block.heads} heads are not among {list(choices.heads)}"
        elif block.hidden not in choices.hidden:
            return f"block {position + 1}: {block.hidden} hidden units are not among the choices"
    return None


def _count_block_patterns(stage: StageChoices) -> int:
    widths = len(stage.heads) * len(stage.hidden)
    kept, skipped = 1, 0  # ways that end in a kept or in a skipped block
    for position in range(stage.blocks):
        if stage.may_skip(position):
            kept, skipped = kept * widths, kept + skipped
        else:
            kept, skipped = (kept + skipped) * widths, 0
    return kept + skipped
