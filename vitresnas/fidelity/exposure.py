"""Choice by choice: how often a super-network's training drew it, and how its networks score now.

The draws follow from the training's seed, so they are replayed, not recorded.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from vitresnas.fidelity.score import Scores
from vitresnas.files import JsonObject
from vitresnas.space import Architecture, SearchSpace
from vitresnas.train.recipe import Recipe
from vitresnas.train.tasks import drawn_at

KINDS = ("width", "kept", "heads", "hidden")
Key = tuple[int, str, int]
Probes = Mapping[Architecture, Scores]


@dataclass(frozen=True)
class Exposure:
    """A choice of a stage, its share of the training's draws, and the networks that use it.

    kind: "width" of the stage, "kept" (value: blocks that are not skipped), "heads" and "hidden" of
    its blocks; skipped blocks draw none. The likelihoods (negative, nats; `calibrated`: at every
    network's best temperature) are means over the uses among probes, None where none uses it.
    """

    stage: int
    kind: str
    value: int
    drawn: int
    share: float
    negative_log_likelihood: float | None = None
    calibrated: float | None = None

    def to_json(self) -> JsonObject:
        return asdict(self)


@dataclass(frozen=True)
class Influence:
    """The share of the variance of the probes' scores that lies between the values of one choice
    (the correlation ratio), as they are and calibrated."""

    stage: int
    kind: str
    negative_log_likelihood: float
    calibrated: float

    def __str__(self) -> str:
        what = "width" if self.kind == "width" else "number of blocks"
        return (
            f"{what} of stage {self.stage}: {100 * self.negative_log_likelihood:.0f} % of the "
            f"variance, {100 * self.calibrated:.0f} % once calibrated"
        )

    def to_json(self) -> JsonObject:
        return asdict(self)


def exposures(
    space: SearchSpace, recipe: Recipe, steps_per_epoch: int, probes: Probes
) -> tuple[Exposure, ...]:
    """Every choice of every stage, largest first, by replaying the draws of `recipe`."""
    counts: Counter[Key] = Counter()
    for epoch in range(recipe.epochs):
        for step in range(steps_per_epoch):
            for architecture in drawn_at(recipe, space, epoch, step):
                counts.update(choices_of(architecture))
    totals: Counter[tuple[int, str]] = Counter()
    for (stage, kind, _), count in counts.items():
        totals[stage, kind] += count
    uses: dict[Key, list[Scores]] = defaultdict(list)
    for architecture, scores in probes.items():
        for key in choices_of(architecture):
            uses[key].append(scores)

    def described(key: Key) -> Exposure:
        stage, kind, _ = key
        found = uses[key]
        return Exposure(
            *key,
            counts[key],
            counts[key] / totals[stage, kind],
            fmean(one.negative_log_likelihood for one in found) if found else None,
            fmean(one.calibrated for one in found) if found else None,
        )

    order = sorted(counts, key=lambda key: (key[0], KINDS.index(key[1]), -key[2]))
    return tuple(map(described, order))


def influences(probes: Probes) -> tuple[Influence, ...]:
    """What every network has one of, the most telling first."""
    values: dict[tuple[int, str], dict[Architecture, int]] = defaultdict(dict)
    for architecture in probes:
        for stage, kind, value in choices_of(architecture):
            if kind in ("width", "kept"):
                values[stage, kind][architecture] = value
    found = (
        Influence(
            stage,
            kind,
            *(
                correlation_ratio([chosen[a] for a in probes], [getattr(s, name) for s in scores])
                for name in ("negative_log_likelihood", "calibrated")
            ),
        )
        for (stage, kind), chosen in values.items()
        for scores in (list(probes.values()),)
    )
    return tuple(sorted(found, key=lambda one: -one.negative_log_likelihood))


def correlation_ratio(groups: Sequence[int], values: Sequence[float]) -> float:
    """Variance between groups over all of it: 0 where groups do not differ, 1 where nothing else
    does."""
    mean = fmean(values)
    by_group: dict[int, list[float]] = defaultdict(list)
    for group, value in zip(groups, values, strict=True):
        by_group[group].append(value)
    whole = sum((value - mean) ** 2 for value in values)
    between = sum(len(one) * (fmean(one) - mean) ** 2 for one in by_group.values())
    return between / whole if whole else 0.0


def choices_of(architecture: Architecture) -> Iterator[Key]:
    """(stage from 1, kind, value) of everything that was chosen."""
    for number, stage in enumerate(architecture.stages, 1):
        yield number, "width", stage.embed
        yield number, "kept", len(stage.kept)
        for block in stage.kept:
            yield number, "heads", block.heads
            yield number, "hidden", block.hidden


def lines(found: Sequence[Exposure]) -> list[str]:
    """For people: one line per stage and kind; shares of the draws, then mean likelihoods."""
    text: dict[tuple[int, str], list[str]] = {}
    for one in found:
        loss = one.negative_log_likelihood
        words = f"{one.value}: {100 * one.share:.0f} %" + ("" if loss is None else f" {loss:.3f}")
        text.setdefault((one.stage, one.kind), []).append(words)
    return [f"stage {stage} {kind:7} {'   '.join(parts)}" for (stage, kind), parts in text.items()]
