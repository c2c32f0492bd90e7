"""TrainingResult: what a finished run reports, and its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from vitresnas.data.by_class import told_by_class
from vitresnas.files import Fields, JsonObject, read_json, write_json
from vitresnas.progress import duration

RESULT = "training_result.json"
KIND = "training_result"
VERSION = 2


@dataclass(frozen=True)
class TrainingResult:
    """Scores by network name: {"largest": {"accuracy", "negative_log_likelihood",
    "accuracy_by_class"}}.

    data: {"name", "id", "notes"}. classes: {"names", "holdout_images", "test_images"}, in the order
    of accuracy_by_class; empty, like those, in results of version 1. seconds: of training, over all
    resumed parts.
    """

    recipe: str
    data: JsonObject
    classes: JsonObject
    holdout: JsonObject
    test: JsonObject
    seconds: float

    def to_json(self) -> JsonObject:
        return asdict(self)

    def save(self, out: Path) -> None:
        write_json(out / RESULT, KIND, self.to_json(), VERSION)

    @classmethod
    def load(cls, out: Path) -> TrainingResult | None:
        """The result of the finished run in `out`; None where nothing has finished."""
        if not (out / RESULT).exists():
            return None
        fields = Fields(read_json(out / RESULT, KIND, VERSION, UPGRADES), str(out / RESULT))
        result = cls(
            recipe=fields.text("recipe"),
            data=fields.take("data"),
            classes=fields.take("classes"),
            holdout=fields.take("holdout"),
            test=fields.take("test"),
            seconds=fields.number("seconds", minimum=0),
        )
        fields.done()
        return result

    def lines(self) -> list[str]:
        """For people: one network a line."""
        lines = [f"{'':10} hold-out             test (only reported)"]
        for name, holdout in self.holdout.items():
            columns = (
                f"{100 * score['accuracy']:5.1f} %, nll {score['negative_log_likelihood']:.3f}"
                for score in (holdout, self.test[name])
            )
            lines.append(f"{name:10} {'  '.join(columns)}")
        return [*lines, *self._by_class(), f"trained in {duration(self.seconds)}"]

    def _by_class(self) -> list[str]:
        """The first network's classes, where they are of unequal size."""
        if not self.classes:
            return []
        name, score = next(iter(self.test.items()))
        names, counts = self.classes["names"], self.classes["test_images"]
        told = told_by_class(names, score["accuracy_by_class"], counts)
        return [f"{name:10} {told}"] if told else []


def _upgrade_1(document: JsonObject) -> JsonObject:
    """Version 2 tells accuracies class by class."""

    def score(old: JsonObject) -> JsonObject:
        return {**old, "accuracy_by_class": []}

    return {
        **document,
        "classes": {},
        **{
            split: {name: score(old) for name, old in document[split].items()}
            for split in ("holdout", "test")
        },
    }


UPGRADES = {1: _upgrade_1}
