"""TrainingResult: what a finished run reports, and its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from vitresnas.files import Fields, JsonObject, read_json, write_json
from vitresnas.train.progress import clock

RESULT = "training_result.json"
KIND = "training_result"


@dataclass(frozen=True)
class TrainingResult:
    """Scores by network name: {"largest": {"accuracy": ..., "negative_log_likelihood": ...}}.

    data: {"name", "id", "notes"}. seconds: of training, over all resumed parts.
    """

    recipe: str
    data: JsonObject
    holdout: JsonObject
    test: JsonObject
    seconds: float

    def to_json(self) -> JsonObject:
        return asdict(self)

    def save(self, out: Path) -> None:
        write_json(out / RESULT, KIND, self.to_json())

    @classmethod
    def load(cls, out: Path) -> TrainingResult | None:
        """The result of the finished run in `out`; None where nothing has finished."""
        if not (out / RESULT).exists():
            return None
        fields = Fields(read_json(out / RESULT, KIND), str(out / RESULT))
        result = cls(
            recipe=fields.text("recipe"),
            data=fields.take("data"),
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
        return [*lines, f"trained in {clock(self.seconds)}"]
