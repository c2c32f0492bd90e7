"""The log of a table in the making: every measurement is on the disk before the next one starts.

Lines: one `header` that says what is being measured, `operation` lines, one `networks` line with
the whole networks chosen, `network` and `compared` lines, and `anchor` lines all through. Their
order is the order in time: the seconds of all lines before one say when it was measured, pauses of
a killed run left out. A run that was killed continues from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject, append_line, digest, read_lines
from vitresnas.latency.drift import Reading, Stretch
from vitresnas.latency.networks import NetworkChoice
from vitresnas.latency.timing import positive

VERSION = 2
COMPARED = "compared"  # existing models, which are timed in the rounds of the networks
PHASES = ("operation", "network", COMPARED)


@dataclass(frozen=True)
class Visit:
    """One measurement: which item, in which round, what it took.

    `seconds` is the whole visit, warm-up included: it is what the time budget is spent on.
    """

    phase: str  # one of PHASES
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
    readings: list[Reading] = field(default_factory=list)
    _seconds: dict[tuple[str, int], float] = field(default_factory=dict)
    _at: dict[tuple[str, int, str], float] = field(default_factory=dict)
    _now: float = 0.0

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
                    return log, f"continuing {path}: {len(log.visits)} measurements so far"
            elif lines:
                message = (
                    f"{path} was left by another measurement (its condition, space or version "
                    "differ): it is ignored and replaced"
                )
            path.unlink()
        append_line(path, header)
        return cls(path), message

    def _replay(self, lines: list[JsonObject]) -> None:
        for number, line in enumerate(lines, start=2):
            where = f"line {number} of {self.path}"
            fields = Fields(line, where)
            kind = fields.text("type", choices=("networks", "anchor", *PHASES))
            if kind == "networks":
                self.networks = NetworkChoice.take(fields)
            elif kind == "anchor":
                self._remember_reading(
                    positive(fields, "host_milliseconds"),
                    positive(fields, "device_milliseconds"),
                    _waiting(fields),
                    fields.number("seconds", minimum=0.0),
                )
            else:
                self._remember(Visit.take(fields), where)
            fields.done()

    def _remember(self, visit: Visit, where: str) -> None:
        key = (visit.phase, visit.round, visit.item)
        if key in self.visits:
            raise FileFormatError(f"{where} measures {key} again: remove the file to start afresh")
        self.visits[key] = visit
        self._now += visit.seconds
        self._at[key] = self._now
        spent = self._seconds.get((visit.phase, visit.round), 0.0)
        self._seconds[visit.phase, visit.round] = spent + visit.seconds

    def record(self, visit: Visit) -> None:
        append_line(self.path, visit.to_json())
        self._remember(visit, str(self.path))

    def read_anchor(
        self, host: float, device: float, waiting: int | None, seconds: float
    ) -> Reading:
        seconds = round(seconds, 6)
        line = {
            "type": "anchor",
            "host_milliseconds": host,
            "device_milliseconds": device,
            "waiting": waiting,
            "seconds": seconds,
        }
        append_line(self.path, line)
        return self._remember_reading(host, device, waiting, seconds)

    def _remember_reading(
        self, host: float, device: float, waiting: int | None, seconds: float
    ) -> Reading:
        self._now += seconds
        self.readings.append(Reading(round(self._now, 3), host, device, waiting))
        return self.readings[-1]

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

    def inside(self, visit: Visit, stretches: Sequence[Stretch]) -> bool:
        """Whether a visit was made in one of these stretches."""
        at = self._at[visit.phase, visit.round, visit.item]
        return any(stretch.holds(at) for stretch in stretches)

    def seconds(self, phase: str, rounds: int) -> float:
        """Time spent on the first rounds of a phase."""
        return sum(self._seconds.get((phase, round_), 0.0) for round_ in range(rounds))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _waiting(fields: Fields) -> int | None:
    value = fields.take("waiting")
    return None if value is None else fields.integer("waiting", minimum=0)
