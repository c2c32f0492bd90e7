"""SearchResult: what a search found, and the file that tells it.

`history`, `selected` and `pareto` are the search's own and repeat exactly for the same space,
super-network, table and seed. Everything timed stands apart: `rounds` (the finalists' measured
speeds, and candidates that a measured bias called for), `best`, `verdict` and `seconds`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject, read_json, write_json
from vitresnas.latency.difference import Difference
from vitresnas.search.candidate import Candidate, Finalist, Score, optional_number
from vitresnas.search.check import VERDICTS, judge
from vitresnas.search.compared import ComparedModel
from vitresnas.search.constraint import COSTS

KIND, RESULT = "search_result", "search_result.json"
VERSION = 5


@dataclass(frozen=True)
class Round:
    """One round of proof: who was re-timed, under which prediction, and what it taught.

    `required` is the least prediction that admitted a network, `bias` the measured lower bound
    over the prediction (median of the finalists); both in the target's own unit. `candidates` are
    those scored because an earlier round's bias called for more: none in the first round, whose
    candidates are the history.
    """

    required: float
    bias: float
    finalists: tuple[Finalist, ...]
    candidates: tuple[Candidate, ...] = ()

    def to_json(self) -> JsonObject:
        return {
            "required": self.required,
            "bias": self.bias,
            "finalists": [finalist.to_json() for finalist in self.finalists],
            "candidates": [candidate.to_json() for candidate in self.candidates],
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Round:
        fields = Fields(value, where)
        found = cls(
            fields.number("required", minimum=0),
            fields.number("bias", minimum=0),
            fields.items("finalists", Finalist.from_json),
            fields.items("candidates", Candidate.from_json),
        )
        fields.done()
        return found


@dataclass(frozen=True)
class Tuned:
    """A finalist that was trained further: its hold-out score with its own weights."""

    id: str
    score: Score

    def __str__(self) -> str:
        loss, accuracy = self.score.negative_log_likelihood, self.score.accuracy or 0.0
        return f"{self.id}: accuracy {accuracy:.4f}, negative log-likelihood {loss:.4f}"

    def to_json(self) -> JsonObject:
        return {
            "id": self.id,
            "negative_log_likelihood": self.score.negative_log_likelihood,
            "score": self.score.accuracy,
            "images": self.score.images,
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Tuned:
        fields = Fields(value, where)
        loss, accuracy = fields.number("negative_log_likelihood"), optional_number(fields, "score")
        found = cls(fields.text("id"), Score(loss, accuracy, fields.integer("images", minimum=0)))
        fields.done()
        return found


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search; without a proof `verdict` is "unproven" and `best` unmeasured.

    Verdicts are those of check.py: "met", "missed", "undecided", "unproven".

    `target` holds images_per_second, requested, batch_size, dtype, runtime and device, or is
    empty where no throughput was asked for. `largest` is the space's largest network, scored and
    (after a proof) timed beside the finalists, for comparison; so are the existing models of
    `compared`. `per_class` tells the finalists' accuracies class by class (per_class.py), or is
    empty. `table_difference`: where the table's machine is not the one that searched.
    `fine_tuned`: finalists that were trained further before `best` was chosen among them; then the
    model beside the result has those weights.
    """

    verdict: str
    best: Finalist
    selected: Finalist
    history: tuple[Candidate, ...]
    pareto: tuple[str, ...]
    seed: int
    largest: Finalist
    rounds: tuple[Round, ...] = ()
    target: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    test_accuracy: float | None = None
    per_class: Mapping[str, Any] = field(default_factory=dict)
    compared: tuple[ComparedModel, ...] = ()
    table_difference: tuple[Difference, ...] = ()
    fine_tuned: tuple[Tuned, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise FileFormatError(
                f"the verdict is {self.verdict!r}, expected one of {', '.join(VERDICTS)}"
            )
        known = {candidate.id for candidate in self.history}
        if len(known) != len(self.history):
            raise FileFormatError("the history holds a network twice: it was changed by hand")
        for name, ids in (("selected", {self.selected.candidate.id}), ("pareto", {*self.pareto})):
            if not ids <= known:
                raise FileFormatError(f"{name} names {min(ids - known)}, not in the history")

    @property
    def evaluated_images(self) -> int:
        """Images that candidates saw, all rounds together."""
        extra = (candidate for found in self.rounds for candidate in found.candidates)
        return sum(candidate.score.images for candidate in (*self.history, *extra))

    def estimated(self, candidate: Candidate) -> bool:
        """Whether its score is of a part of the hold-out, as those that leave a race have it."""
        return 0 < candidate.score.images < self.largest.candidate.score.images

    def find(self, identifier: str) -> Candidate:
        """The candidate of the history with this id."""
        return next(found for found in self.history if found.id == identifier)

    def to_json(self) -> JsonObject:
        return {
            "target": dict(self.target),
            "verdict": self.verdict,
            "best": self.best.to_json(),
            "selected": self.selected.to_json(),
            "largest": self.largest.to_json(),
            "pareto": list(self.pareto),
            "history": [candidate.to_json() for candidate in self.history],
            "rounds": [found.to_json() for found in self.rounds],
            "seed": self.seed,
            "settings": dict(self.settings),
            "environment": dict(self.environment),
            "evaluated_images": self.evaluated_images,
            "seconds": dict(self.seconds),
            "test_accuracy": self.test_accuracy,
            "per_class": dict(self.per_class),
            "compared": [found.to_json() for found in self.compared],
            "table_difference": [found.to_json() for found in self.table_difference],
            "fine_tuned": [found.to_json() for found in self.fine_tuned],
        }

    @classmethod
    def from_json(cls, value: object, where: str = "the search result") -> SearchResult:
        """Raises FileFormatError for a missing, unknown or contradicting field."""
        fields = Fields(value, where)
        result = cls(
            verdict=fields.text("verdict", choices=VERDICTS),
            best=Finalist.from_json(fields.take("best"), f"{where}, best"),
            selected=Finalist.from_json(fields.take("selected"), f"{where}, selected"),
            largest=Finalist.from_json(fields.take("largest"), f"{where}, largest"),
            history=fields.items("history", Candidate.from_json),
            pareto=fields.items("pareto", _text),
            rounds=fields.items("rounds", Round.from_json),
            seed=fields.integer("seed", minimum=0),
            target=_object(fields, "target"),
            settings=_object(fields, "settings"),
            environment=_object(fields, "environment"),
            seconds=_object(fields, "seconds"),
            test_accuracy=fields.take("test_accuracy"),
            per_class=_object(fields, "per_class"),
            compared=fields.items("compared", ComparedModel.from_json),
            table_difference=fields.items("table_difference", Difference.from_json),
            fine_tuned=fields.items("fine_tuned", Tuned.from_json),
        )
        images = fields.integer("evaluated_images", minimum=0)
        if images != result.evaluated_images:
            raise fields.wrong("evaluated_images", images, str(result.evaluated_images))
        fields.done()
        return result

    def save(self, path: str | Path) -> None:
        """Write the file, after reading it back as a check that it says the same."""
        document = self.to_json()
        if SearchResult.from_json(document).to_json() != document:
            raise ValueError("a search result does not survive its own file format")
        write_json(path, KIND, document, VERSION)

    @classmethod
    def load(cls, path: str | Path) -> SearchResult:
        return cls.from_json(read_json(path, KIND, VERSION, UPGRADES), str(path))


def _upgrade_1(document: JsonObject) -> JsonObject:
    """Version 2 adds further costs, a check of every constraint, and accuracies by class."""

    def candidate(old: JsonObject) -> JsonObject:
        return {**old, "costs": {}}

    def finalist(old: JsonObject) -> JsonObject:
        return {**candidate(old), "checks": []}

    return {
        **document,
        **{name: finalist(document[name]) for name in ("best", "selected", "largest")},
        "history": [candidate(old) for old in document["history"]],
        "rounds": [
            {
                **found,
                "finalists": [finalist(old) for old in found["finalists"]],
                "candidates": [candidate(old) for old in found["candidates"]],
            }
            for found in document["rounds"]
        ],
        "per_class": {},
    }


def _upgrade_2(document: JsonObject) -> JsonObject:
    """Version 3 adds existing models, and where the table's machine differs."""
    return {**document, "compared": [], "table_difference": []}


def _upgrade_3(document: JsonObject) -> JsonObject:
    """Version 4 adds fine-tuned finalists."""
    return {**document, "fine_tuned": []}


def _upgrade_4(document: JsonObject) -> JsonObject:
    """Version 5 tells "undecided" from "missed"."""

    def check(old: JsonObject) -> JsonObject:
        ends, at_least = old["interval_95"], COSTS[old["name"]].at_least
        return {**old, "verdict": judge(ends, old["bound"], at_least=at_least)} if ends else old

    def finalist(old: JsonObject) -> JsonObject:
        return {**old, "checks": [check(one) for one in old["checks"]]}

    best = finalist(document["best"])
    undecided = (
        document["verdict"] == "missed"
        and best["checks"]
        and not any(one["verdict"] == "missed" for one in best["checks"])
    )
    return {
        **document,
        **{name: finalist(document[name]) for name in ("best", "selected", "largest")},
        "rounds": [
            {**found, "finalists": [finalist(old) for old in found["finalists"]]}
            for found in document["rounds"]
        ],
        "verdict": "undecided" if undecided else document["verdict"],
    }


UPGRADES = {1: _upgrade_1, 2: _upgrade_2, 3: _upgrade_3, 4: _upgrade_4}


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise FileFormatError(f"{where} is {value!r}, expected text")
    return value


def _object(fields: Fields, name: str) -> JsonObject:
    value = fields.take(name)
    if not isinstance(value, dict):
        raise fields.wrong(name, value, "an object with named fields")
    return value
