"""The evaluation log: every score ever taken, append-only and content-addressed. It is the truth.

Its first line says what the scores are of (the context: super-network weights, images, batch
size); every other line is one network's score under the network's id and the digest of that
context. A search that was killed runs again from its start, finds its scores here, and so arrives
where it was. Several searches may share one log, at the same time too: each sees the others' lines
before it scores, and appends alone, under a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from vitresnas.errors import FileFormatError, MismatchError
from vitresnas.files import Fields, JsonObject, digest, flattened, open_lines
from vitresnas.search.candidate import Score, optional_number
from vitresnas.space import Architecture

SCHEMA = "vitresnas/evaluation_log/1"


class ContextLog:
    """A log of records that hold in one context; in memory where there is no path.

    Its first line tells the context in full, every other line carries its digest. Raises
    MismatchError, naming the difference, for a log of another context, and FileFormatError for
    lines that are something else.
    """

    schema: ClassVar[str]
    what: ClassVar[str]

    def __init__(self, path: Path | None = None, context: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._context: JsonObject = dict(context or {})
        self._digest = digest(self._context)[:16]
        self._read = self._lines = 0  # bytes and lines that are known
        self._lock = threading.Lock()
        self._look()

    def _remember(self, fields: Fields, where: str) -> None:
        """Keep a record, unless it is known."""
        raise NotImplementedError

    def _add(self, record: JsonObject, known: Callable[[], bool]) -> None:
        """Append a record unless, by the newest lines, it is `known`; it is on the disk then."""
        line = {"context": self._digest, **record}
        with self._lock:
            if self._path is None:
                self._remember(Fields(record, "the record"), "the record")
                return
            with open_lines(self._path) as lines:
                self._take(*lines.read(self._read))
                if not known():
                    if not self._lines:
                        lines.append({"schema": self.schema, "scores_of": self._context})
                    lines.append(line)
                    self._take(*lines.read(self._read))

    def _look(self) -> None:
        """Read what was appended since the last look."""
        if self._path is None or not self._path.exists():
            return
        with self._lock:
            if self._path.stat().st_size != self._read:
                with open_lines(self._path) as lines:
                    self._take(*lines.read(self._read))

    def _take(self, records: list[JsonObject], end: int) -> None:
        for record in records:
            where = f"{self._path}, line {self._lines + 1}"
            if self._lines == 0:
                self._check_header(record, where)
            else:
                fields = Fields(record, where)
                context = fields.text("context")
                self._remember(fields, where)
                if context != self._digest:
                    raise FileFormatError(
                        f"{where} is of context {context}, the first line of {self._digest}: "
                        "the file was put together from two logs"
                    )
            self._lines += 1
        self._read = end

    def _check_header(self, record: JsonObject, where: str) -> None:
        fields = Fields(record, where)
        schema, found = fields.take("schema", default=None), fields.take("scores_of", default=None)
        if schema != self.schema or not isinstance(found, dict):
            raise FileFormatError(
                f'{where}: expected {{"schema": "{self.schema}", "scores_of": ...}}: this is not '
                f"a {self.what} of this version; choose another file"
            )
        theirs, ours = flattened(found), flattened(self._context)
        for name in (*ours, *theirs):
            if theirs.get(name) != ours.get(name):
                raise MismatchError(
                    f"{self._path} holds scores of {name} {theirs.get(name)!r}, this search's is "
                    f"{ours.get(name)!r}: choose another log, or the files that it was made with"
                )


class EvaluationLog(ContextLog):
    """Scores by architecture id. context: everything but the network that a score depends on."""

    schema = SCHEMA
    what = "evaluation log"

    def __init__(self, path: Path | None = None, context: Mapping[str, Any] | None = None) -> None:
        self._scores: dict[str, Score] = {}
        super().__init__(path, context)

    def __len__(self) -> int:
        return len(self._scores)

    def find(self, architecture: Architecture) -> Score | None:
        """The score of a network, whichever search took it."""
        if architecture.id not in self._scores:
            self._look()
        return self._scores.get(architecture.id)

    def add(self, architecture: Architecture, score: Score) -> Score:
        """Remember a score; it is on the disk when this returns. The one that was there first, if
        another search was faster, is kept and returned."""
        record = {
            "id": architecture.id,
            "negative_log_likelihood": score.negative_log_likelihood,
            "accuracy": score.accuracy,
            "images": score.images,
        }
        self._add(record, lambda: architecture.id in self._scores)
        return self._scores[architecture.id]

    def _remember(self, fields: Fields, where: str) -> None:
        identifier = fields.text("id")
        score = Score(
            fields.number("negative_log_likelihood"),
            optional_number(fields, "accuracy"),
            fields.integer("images", minimum=0),
        )
        fields.done()
        self._scores.setdefault(identifier, score)
