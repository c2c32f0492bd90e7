"""The log of a table in the making: every measurement is on the disk before the next one starts.

Lines: one `header` that says what is being measured, `operation` lines, one `networks` line with
the whole networks chosen, `network` lines. A run that was killed continues from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject, append_line, digest, read_lines
from vitresnas.latency.networks import NetworkChoice
from vitresnas.latency.timing import positive

VERSION = 1


@dataclass(frozen=True)
class Visit:
    """One measurement: which item, in which round, what it took.

    `seconds` is the whole visit, warm-up included: it is what the time budget is spent on.
    """

    phase: str  # "operation" or "network"
    round: int
    item: str
    host: float
    device: float
    seconds: float

    def to_json(self) -> JsonObject:
        return {
            "type": self.phase,
            "round": self.round,
            "item": self.item,
            "host_milliseconds": self.host,
            "device_milliseconds": self.device,
            "seconds": self.seconds,
        }

    @classmethod
    def take(cls, fields: Fields) -> Visit:
        return cls(
            fields.text("type"),
            fields.integer("round", minimum=0),
            fields.text("item"),
            positive(fields, "host_milliseconds"),
            positive(fields, "device_milliseconds"),
            fields.number("seconds", minimum=0.0),
        )


@dataclass
class PartialLog:
    """What has been measured so far, in memory and at `path`."""

    path: Path
    visits: dict[tuple[str, int, str], Visit] = field(default_factory=dict)
    networks: NetworkChoice | None = None
    _seconds: dict[tuple[str, int], float] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, subject: JsonObject) -> tuple[PartialLog, str | None]:
        """Continue the log at `path` if it is about `subject`, else start it anew.

        The second value says, in a sentence for the user, what became of an earlier log.
        """
        header = {"type": "header", "version": VERSION, "key": digest(subject), **subject}
        log, message = cls(path), None
        if path.exists():
            lines = read_lines(path)
            if lines and lines[0] == header:
                log._replay(lines[1:])
                if log.visits:
                    return log, f"continuing {path}: {len(log.visits)} measurements are there"
            elif lines:
                message = (
                    f"{path} was left by another measurement (its condition, space or version "
                    "differ): it is not used, and replaced"
                )
            path.unlink()
        append_line(path, header)
        return cls(path), message

    def _replay(self, lines: list[JsonObject]) -> None:
        for number, line in enumerate(lines, start=2):
            where = f"line {number} of {self.path}"
            fields = Fields(line, where)
            if fields.text("type", choices=("operation", "networks", "network")) == "networks":
                self.networks = NetworkChoice.take(fields)
            else:
                self._remember(Visit.take(fields), where)
            fields.done()

    def _remember(self, visit: Visit, where: str) -> None:
        key = (visit.phase, visit.round, visit.item)
        if key in self.visits:
            raise FileFormatError(f"{where} measures {key} again: remove the file to start afresh")
        self.visits[key] = visit
        spent = self._seconds.get((visit.phase, visit.round), 0.0)
        self._seconds[visit.phase, visit.round] = spent + visit.seconds

    def record(self, visit: Visit) -> None:
        append_line(self.path, visit.to_json())
        self._remember(visit, str(self.path))

    def choose(self, networks: NetworkChoice) -> None:
        append_line(self.path, {"type": "networks", **networks.to_json()})
        self.networks = networks

    def has(self, phase: str, round_: int, item: str) -> bool:
        return (phase, round_, item) in self.visits

    def by_item(self, phase: str) -> dict[str, list[Visit]]:
        """The visits of a phase, item by item in the order of the rounds."""
        found: dict[str, list[Visit]] = {}
        for visit in sorted(self.visits.values(), key=lambda visit: visit.round):
            if visit.phase == phase:
                found.setdefault(visit.item, []).append(visit)
        return found

    def seconds(self, phase: str, rounds: int) -> float:
        """Time spent on the first rounds of a phase."""
        return sum(self._seconds.get((phase, round_), 0.0) for round_ in range(rounds))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
