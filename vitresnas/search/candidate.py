"""What a search knows about one network: its score, its costs, and later its measured speed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vitresnas.errors import FileFormatError, InputError
from vitresnas.files import Fields, JsonObject
from vitresnas.search.check import Check, verdict_of
from vitresnas.search.constraint import Target
from vitresnas.space import Architecture

Interval = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """How well a network does on the hold-out, with inherited weights.

    Candidates are ranked by `negative_log_likelihood` (nats per image, lower is better); with few
    images it ranks far better than accuracy, which is reported beside it.
    """

    negative_log_likelihood: float
    accuracy: float | None = None
    images: int = 0

    @property
    def finite(self) -> bool:
        return math.isfinite(self.negative_log_likelihood)


@dataclass(frozen=True)
class Candidate:
    """One scored network. `parents` are the ids it was bred from; none for a random draw."""

    architecture: Architecture
    score: Score
    predicted_images_per_second: float | None
    macs: int
    parameters: int
    parents: tuple[str, ...] = ()
    costs: tuple[tuple[str, float], ...] = ()  # further ones that the search asked a table for

    @property
    def id(self) -> str:
        return self.architecture.id

    def cost(self, name: str) -> float:
        """A predicted cost by its constraint's name. Raises InputError where it is not known."""
        known: dict[str, float | None] = {
            "throughput": self.predicted_images_per_second,
            "macs": float(self.macs),
            "parameters": float(self.parameters),
            **dict(self.costs),
        }
        found = known.get(name)
        if found is None:
            raise InputError(
                f"{name} of architecture {self.id} is not known here: give a latency table, or "
                f"search with a constraint on {name}"
            )
        return found

    @property
    def rank(self) -> tuple[float, str]:
        """Sorts the best first; the id settles ties, so that every run settles them alike."""
        return self.score.negative_log_likelihood, self.id

    def to_json(self) -> JsonObject:
        return {
            "id": self.id,
            "architecture": self.architecture.to_json(),
            "score": self.score.accuracy,
            "negative_log_likelihood": self.score.negative_log_likelihood,
            "images": self.score.images,
            "predicted_images_per_second": self.predicted_images_per_second,
            "macs": self.macs,
            "parameters": self.parameters,
            "parents": list(self.parents),
            "costs": dict(self.costs),
        }

    @classmethod
    def take(cls, fields: Fields, where: str) -> Candidate:
        """Read a candidate's fields, leaving others for the caller. Raises FileFormatError."""
        architecture = Architecture.from_json(fields.take("architecture"), f"{where}, architecture")
        found = fields.text("id")
        if found != architecture.id:
            raise FileFormatError(
                f"{where}: the id is {found}, its architecture has {architecture.id}: "
                "the file was put together from two searches"
            )
        parents = fields.take("parents")
        if not isinstance(parents, list) or not all(isinstance(item, str) for item in parents):
            raise fields.wrong("parents", parents, "a list of ids")
        costs = fields.take("costs")
        if not isinstance(costs, dict) or not all(isinstance(c, float) for c in costs.values()):
            raise fields.wrong("costs", costs, "costs by name")
        return cls(
            architecture=architecture,
            score=Score(
                fields.number("negative_log_likelihood"),
                optional_number(fields, "score"),
                fields.integer("images", minimum=0),
            ),
            predicted_images_per_second=optional_number(fields, "predicted_images_per_second"),
            macs=fields.integer("macs"),
            parameters=fields.integer("parameters"),
            parents=tuple(parents),
            costs=tuple(sorted(costs.items())),
        )

    @classmethod
    def from_json(cls, value: object, where: str = "the candidate") -> Candidate:
        fields = Fields(value, where)
        candidate = cls.take(fields, where)
        fields.done()
        return candidate


@dataclass(frozen=True)
class Speed:
    """A network's timed speed: medians and their 95 % intervals.

    `relative` is its speed over that of the space's largest network, timed in the same run;
    `priority` is what the system granted while it was timed, `real-time` or `normal`.
    """

    images_per_second: float
    interval_95: Interval
    relative: float
    relative_interval_95: Interval
    samples: int
    priority: str = "normal"

    def judged_by(self, target: Target) -> Interval:
        """The interval in the target's unit."""
        return self.relative_interval_95 if target.relative else self.interval_95


@dataclass(frozen=True)
class Finalist:
    """A candidate as the answer: with its measured speed, or without where none was taken.

    checks: every constraint of the search against what this network really costs.
    """

    candidate: Candidate
    speed: Speed | None = None
    checks: tuple[Check, ...] = ()

    @property
    def verdict(self) -> str:
        """The worst of the checks; "unproven" where none was made."""
        return verdict_of(self.checks)

    def to_json(self) -> JsonObject:
        return {
            **self.candidate.to_json(),
            **speed_to_json(self.speed),
            "checks": [check.to_json() for check in self.checks],
        }

    @classmethod
    def from_json(cls, value: object, where: str = "the finalist") -> Finalist:
        fields = Fields(value, where)
        found = cls(
            Candidate.take(fields, where),
            take_speed(fields, where),
            fields.items("checks", Check.from_json),
        )
        fields.done()
        return found


def speed_to_json(timed: Speed | None) -> JsonObject:
    """The fields of a measured speed; all null where none was taken."""
    return {
        "measured_images_per_second": timed and timed.images_per_second,
        "measured_interval_95": timed and list(timed.interval_95),
        "measured_relative": timed and timed.relative,
        "measured_relative_interval_95": timed and list(timed.relative_interval_95),
        "measured_samples": timed and timed.samples,
        "measured_priority": timed and timed.priority,
    }


def take_speed(fields: Fields, where: str) -> Speed | None:
    """Read those fields out of a larger object. Raises FileFormatError."""
    median = optional_number(fields, "measured_images_per_second")
    rest = [
        fields.take(f"measured_{name}")
        for name in ("interval_95", "relative", "relative_interval_95", "samples", "priority")
    ]
    if median is None:
        if any(item is not None for item in rest):
            raise FileFormatError(f"{where} has an interval without a measured speed")
        return None
    return Speed(
        median,
        _interval(fields, "measured_interval_95"),
        fields.number("measured_relative", minimum=0),
        _interval(fields, "measured_relative_interval_95"),
        fields.integer("measured_samples"),
        fields.text("measured_priority"),
    )


def optional_number(fields: Fields, name: str) -> float | None:
    """A number of at least 0, or null."""
    return None if fields.take(name) is None else fields.number(name, minimum=0)


def _interval(fields: Fields, name: str) -> Interval:
    value = fields.take(name)
    right = (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value)
        and value[0] <= value[1]
    )
    if not right:
        raise fields.wrong(name, value, "two numbers, the lower first")
    return float(value[0]), float(value[1])
