"""QuickstartResult: what came out, for people and as a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from vitresnas.data.by_class import told_worst_first
from vitresnas.doors import rows_of
from vitresnas.files import Fields, JsonObject, read_json, write_json
from vitresnas.progress import duration
from vitresnas.verify.timing import Verification, speed_in_words

RESULT = "quickstart_result.json"
KIND = "quickstart_result"
# As people read them; files sort their fields.
STAGES = ("latency table", "super-network", "search", "retraining", "verification")
FILES = ("model", "retrained", "search", "super-network", "latency table", "plan", "result")
VERSION = 2


@dataclass(frozen=True)
class QuickstartResult:
    """What came out.

    verdict, target, speed: of the verification at the end. proof: {"verdict", "speed"} of the
    search's own, before. model: the folder of the network to use: the retrained one, or the one
    with inherited weights where retraining made the hold-out's likelihood worse. test, holdout:
    {"accuracy", "negative_log_likelihood", "accuracy_by_class"} of it, in the order of classes:
    {"names", "holdout_images", "test_images"}. seconds: by stage, of given_seconds.

    Results of version 1 have no proof, no classes and 0 given_seconds.
    """

    verdict: str
    target: JsonObject
    speed: JsonObject
    proof: JsonObject
    model: str
    network: JsonObject
    retrained: bool
    holdout: JsonObject
    test: JsonObject
    inherited_test_accuracy: float
    classes: JsonObject
    seconds: dict[str, float]
    given_seconds: float
    files: dict[str, str]

    def to_json(self) -> JsonObject:
        return asdict(self)

    def save(self, out: Path) -> None:
        write_json(out / RESULT, KIND, self.to_json(), VERSION)

    @classmethod
    def load(cls, out: Path) -> QuickstartResult | None:
        """The result in `out`; None where there is none. Raises FileFormatError."""
        if not (out / RESULT).exists():
            return None
        fields = Fields(read_json(out / RESULT, KIND, VERSION, UPGRADES), str(out / RESULT))
        found = cls(**{name: fields.take(name) for name in cls.__dataclass_fields__})
        fields.done()
        return found

    def lines(self) -> list[str]:
        """For people."""
        verification = Verification(self.verdict, self.target, self.speed)
        network, seconds = self.network, self.seconds
        stages = ", ".join(
            f"{name} {duration(seconds[name])}" for name in STAGES if name in seconds
        )
        given = f" of {duration(self.given_seconds)} given" if self.given_seconds else ""
        weights = (
            f"({self.inherited_test_accuracy:.4f} before retraining)"
            if self.retrained
            else "with inherited weights: retraining did not help"
        )
        rows = [
            *self._proof(),
            (
                "network",
                f"{network['id']}: {network['macs'] / 1e6:,.1f} M MACs, "
                f"{network['parameters'] / 1e6:,.2f} M parameters",
            ),
            ("test", f"accuracy {self.test['accuracy']:.4f} {weights}"),
            *self._by_class(),
            ("time", f"{duration(sum(seconds.values()))}{given}: {stages}"),
            *((name, self.files[name]) for name in FILES if name in self.files),
        ]
        return [*verification.lines(), *rows_of(rows)]

    def _proof(self) -> list[tuple[str, str]]:
        """The search's own, where the two disagree."""
        if not self.proof or self.proof["verdict"] == self.verdict:
            return []
        speed = speed_in_words(self.proof["speed"])
        return [("before", f"{self.proof['verdict']} in the search: {speed}")]

    def _by_class(self) -> list[tuple[str, str]]:
        if not self.classes:
            return []
        names, counts = self.classes["names"], self.classes["test_images"]
        return [("by class", told_worst_first(names, self.test["accuracy_by_class"], counts))]


def _upgrade_1(document: JsonObject) -> JsonObject:
    """Version 2 tells accuracies class by class, the search's own proof, and the time given."""
    return {**document, "proof": {}, "classes": {}, "given_seconds": 0.0}


UPGRADES = {1: _upgrade_1}
