"""How often a super-network's training drew each choice: its draws follow from its seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

from vitresnas.files import JsonObject
from vitresnas.space import SearchSpace
from vitresnas.train.recipe import Recipe
from vitresnas.train.tasks import drawn_at

KINDS = ("width", "heads", "hidden", "kept")


@dataclass(frozen=True)
class Exposure:
    """A choice of a stage and in how many of the training's sub-networks it was in use.

    kind: "width" of the stage, "heads" and "hidden" of its blocks, "kept" (value: blocks that are
    not skipped). share: of the stage's draws of that kind; skipped blocks draw no heads.
    """

    stage: int
    kind: str
    value: int
    drawn: int
    share: float

    def to_json(self) -> JsonObject:
        return asdict(self)


def exposures(space: SearchSpace, recipe: Recipe, steps_per_epoch: int) -> tuple[Exposure, ...]:
    """Every choice of every stage, by replaying the draws of `recipe`; choices largest first."""
    counts: Counter[tuple[int, str, int]] = Counter()
    for epoch in range(recipe.epochs):
        for step in range(steps_per_epoch):
            for architecture in drawn_at(recipe, space, epoch, step):
                for index, stage in enumerate(architecture.stages):
                    counts[index, "width", stage.embed] += 1
                    counts[index, "kept", len(stage.kept)] += 1
                    for block in stage.kept:
                        counts[index, "heads", block.heads] += 1
                        counts[index, "hidden", block.hidden] += 1
    totals: Counter[tuple[int, str]] = Counter()
    for (index, kind, _), count in counts.items():
        totals[index, kind] += count
    order = sorted(counts, key=lambda key: (key[0], KINDS.index(key[1]), -key[2]))
    return tuple(
        Exposure(index + 1, kind, value, counts[index, kind, value],
                 counts[index, kind, value] / totals[index, kind])
        for index, kind, value in order
    )  # fmt: skip


def lines(found: tuple[Exposure, ...]) -> list[str]:
    """For people: one line per stage and kind, shares in percent."""
    text: dict[tuple[int, str], list[str]] = {}
    for one in found:
        text.setdefault((one.stage, one.kind), []).append(f"{one.value}: {100 * one.share:.0f} %")
    return [f"stage {stage} {kind:7} {'  '.join(parts)}" for (stage, kind), parts in text.items()]
