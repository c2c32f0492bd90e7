"""Scores by parts: networks' losses on blocks of the hold-out, each computed once.

Several networks meet a block in one pass. Which ones is settled by their places in the list that
is asked for, so a search that was killed forms the same passes when it goes on, and rounds the
same. What was computed is remembered in 32 bits, on disk where a path is given: a decision never
rests on other digits than the first time.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from vitresnas.errors import FileFormatError, InputError
from vitresnas.files import Fields
from vitresnas.search.log import ContextLog
from vitresnas.space import Architecture

Losses = npt.NDArray[np.float64]
BLOCK = 100  # images
NETWORKS_PER_PASS = 5


@dataclass(frozen=True, eq=False)
class Part:
    """Losses (n,) of n images, in nats, and how many of them were classified correctly."""

    losses: Losses
    correct: int


@runtime_checkable
class PartScorer(Protocol):
    """Scores networks on the images from `first` up to `last` of a hold-out in random order.

    The same networks and images must give the same parts, whatever was asked before.
    """

    @property
    def images(self) -> int:
        """How many images the hold-out has."""
        ...

    def parts(
        self, architectures: Sequence[Architecture], first: int, last: int
    ) -> Sequence[Part]: ...


Key = tuple[str, int]  # network, block


class Parts(ContextLog):
    """The parts of a scorer block by block, remembered.

    path, context: as in EvaluationLog. workers: threads that score passes, which changes nothing
    but the order of the log's lines.
    """

    schema = "vitresnas/evaluation_parts/1"
    what = "log of evaluation parts"

    def __init__(
        self,
        scorer: PartScorer,
        path: Path | None = None,
        context: Mapping[str, Any] | None = None,
        workers: int = 1,
    ) -> None:
        self._scorer = scorer
        self._workers = workers
        self._known: dict[Key, Part] = {}
        super().__init__(path, {**(context or {}), "block": BLOCK, "images": scorer.images})

    @property
    def images(self) -> int:
        return self._scorer.images

    @property
    def blocks(self) -> int:
        """How many blocks the hold-out has; the last one may be short."""
        return -(-self.images // BLOCK)

    def block(self, architectures: Sequence[Architecture], number: int) -> list[Part]:
        """What every network makes of one block. Raises InputError where a loss is not finite."""
        starts = range(0, len(architectures), NETWORKS_PER_PASS)
        passes = [architectures[start : start + NETWORKS_PER_PASS] for start in starts]
        if self._workers == 1:
            return [part for networks in passes for part in self._pass(networks, number)]
        pool = ThreadPoolExecutor(self._workers)
        try:
            found = pool.map(lambda networks: self._pass(networks, number), passes)
            return [part for parts in found for part in parts]
        finally:
            # An interrupted search must not first score all that was waiting.
            pool.shutdown(cancel_futures=True)

    def _pass(self, networks: Sequence[Architecture], number: int) -> list[Part]:
        keys = [(network.id, number) for network in networks]
        if not all(key in self._known for key in keys):
            self._look()
        if not all(key in self._known for key in keys):
            # Whole even where only one is missing: in other company it might round otherwise.
            first, last = number * BLOCK, min((number + 1) * BLOCK, self.images)
            for key, part in zip(keys, self._scorer.parts(networks, first, last), strict=True):
                self._add_part(key, part)
        return [self._known[key] for key in keys]

    def _add_part(self, key: Key, part: Part) -> None:
        identifier, number = key
        short = part.losses.astype("<f4")
        if not np.isfinite(short).all():
            raise InputError(
                f"a loss of architecture {identifier} is not finite: its super-network has "
                "weights that are not finite; train it again"
            )
        record = {
            "id": identifier,
            "block": number,
            "losses": base64.b64encode(short.tobytes()).decode(),
            "correct": part.correct,
        }
        self._add(record, lambda: key in self._known)

    def _remember(self, fields: Fields, where: str) -> None:
        identifier, number = fields.text("id"), fields.integer("block", minimum=0)
        correct, text = fields.integer("correct", minimum=0), fields.text("losses")
        fields.done()
        try:
            losses = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
        except ValueError as error:
            raise FileFormatError(
                f"{where}: losses are not numbers ({error}): remove the line"
            ) from None
        images = min(BLOCK, self.images - number * BLOCK)
        if len(losses) != images or correct > images:
            raise FileFormatError(
                f"{where}: {len(losses)} losses, {correct} of them correct, of {images} images: "
                "remove the line"
            )
        self._known.setdefault((identifier, number), Part(losses.astype(np.float64), correct))
