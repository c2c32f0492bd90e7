"""Replay: a small space whose every network was scored once, image by image.

Strategies are judged on it at no cost: a score is read, not computed, and the true rank of every
network is known. The space is whole, so a strategy runs on it unchanged: none of its proposals
lies outside, none is moved to a neighbour, and whoever searches better finds the better network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from vitresnas.errors import FileFormatError, InputError, MismatchError
from vitresnas.files import JsonObject, atomic_path
from vitresnas.search.candidate import Score
from vitresnas.search.constraint import Constraint, slack
from vitresnas.search.parts import Part
from vitresnas.space import Architecture, SearchSpace
from vitresnas.space.coding import Code, decode, encode

SCHEMA = "vitresnas/replay/1"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Replay:
    """N networks x I images. Also a scorer, a scorer by parts and, once priced, a predictor.

    codes: uint8 (N, V), see space/coding.py; log_likelihoods: float16 (N, I), nats of the true
    class; correct: bool (N, I); labels: uint8 (I,); macs, parameters: (N,); prices: images per
    second (N,) by the name of their condition. `about` tells where it comes from.
    """

    space: SearchSpace
    codes: npt.NDArray[np.uint8]
    log_likelihoods: npt.NDArray[np.float16]
    correct: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.uint8]
    macs: npt.NDArray[np.int64]
    parameters: npt.NDArray[np.int64]
    prices: Mapping[str, Floats] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    priced_by: str | None = None  # which of `prices` predicts speed

    def __post_init__(self) -> None:
        networks, images = self.log_likelihoods.shape
        whole = len(self.codes) == networks == self.space.size == len(set(self._rows))
        if not whole or self.correct.shape != (networks, images) or len(self.labels) != images:
            raise MismatchError(
                f"this replay holds {len(set(self._rows))} networks, {networks} of them with "
                f"scores of {images} images; its space has {self.space.size}: make it again"
            )

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def images(self) -> int:
        return len(self.labels)

    def __call__(self, architecture: Architecture) -> Score:
        """The score on all images."""
        row = self.row(architecture)
        return Score(float(self._means[row]), float(self.correct[row].mean()), self.images)

    def parts(self, architectures: Sequence[Architecture], first: int, last: int) -> list[Part]:
        """What networks make of the images from `first` up to `last`."""
        rows = [self.row(architecture) for architecture in architectures]
        losses = -self.log_likelihoods[rows, first:last].astype(np.float64)
        correct = self.correct[rows, first:last].sum(axis=1)
        return [Part(*pair) for pair in zip(losses, correct.tolist(), strict=True)]

    def on_first(self, images: int) -> Callable[[Architecture], Score]:
        """A scorer that asks the first so many images only."""

        def score(architecture: Architecture) -> Score:
            (part,) = self.parts([architecture], 0, images)
            return Score(float(part.losses.mean()), part.correct / images, images)

        return score

    def images_per_second(self, architecture: Architecture) -> float:
        if self.priced_by is None:
            raise InputError("no price was chosen: use replay.with_prices(NAME)")
        return float(self.prices[self.priced_by][self.row(architecture)])

    def with_prices(self, name: str) -> Replay:
        """The same, predicting speed by one of its prices. Raises InputError."""
        if name not in self.prices:
            known = ", ".join(self.prices) or "none yet"
            raise InputError(f"this replay has no prices {name!r}: it has {known}")
        return replace(self, priced_by=name)

    def row(self, architecture: Architecture) -> int:
        """Where a network stands. Raises MismatchError for one of another space."""
        row = self._asked.get(architecture)
        if row is None:
            row = self._asked[architecture] = self._rows[encode(self.space, architecture)]
        return row

    def network(self, row: int) -> Architecture:
        return decode(self.space, self.codes[row].tolist())

    def ranks(self, constraints: Sequence[Constraint] = ()) -> npt.NDArray[np.int64]:
        """Every network's true rank among those that keep the constraints: 1 is the best.

        0 for those that do not keep them. Equal scores share the better rank.
        """
        admitted = np.array([self._admits(row, tuple(constraints)) for row in range(len(self))])
        means = np.sort(self._means[admitted])
        return np.where(admitted, 1 + np.searchsorted(means, self._means), 0)

    def _admits(self, row: int, constraints: tuple[Constraint, ...]) -> bool:
        costs = {"macs": float(self.macs[row]), "parameters": float(self.parameters[row])}
        if self.priced_by is not None:
            costs["throughput"] = float(self.prices[self.priced_by][row])
        return slack(constraints, costs) >= 1

    @cached_property
    def _rows(self) -> dict[Code, int]:
        return {tuple(code): row for row, code in enumerate(self.codes.tolist())}

    @cached_property
    def _means(self) -> Floats:
        return -self.log_likelihoods.mean(axis=1, dtype=np.float64)

    @cached_property
    def _asked(self) -> dict[Architecture, int]:
        return {}  # rows by network: encoding one costs more than all else of a lookup

    # Files

    def save(self, path: str | Path) -> None:
        """One .npz without pickle; `about` and the space stand in it as JSON."""
        head: JsonObject = {
            "schema": SCHEMA,
            "space": self.space.to_json(),
            "images": self.images,
            "prices": list(self.prices),
            "about": dict(self.about),
        }
        text = json.dumps(head, sort_keys=True, allow_nan=False)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                head=np.frombuffer(text.encode(), dtype=np.uint8),
                codes=self.codes,
                log_likelihoods=self.log_likelihoods,
                correct=np.packbits(self.correct, axis=1),
                labels=self.labels,
                macs=self.macs,
                parameters=self.parameters,
                prices=np.array([*self.prices.values()], dtype=np.float64),
            )

    @classmethod
    def load(cls, path: str | Path) -> Replay:
        """Raises InputError where there is no file, FileFormatError where it is no replay."""
        if not Path(path).exists():
            raise InputError(f"there is no file {path}: check the path")
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            head = json.loads(arrays["head"].tobytes())
            schema, images = head["schema"], int(head["images"])
            if schema != SCHEMA:
                raise FileFormatError(f"{path} is a {schema}, expected {SCHEMA}")
            return cls(
                space=SearchSpace.from_json(head["space"], f"{path}, space"),
                codes=arrays["codes"],
                log_likelihoods=arrays["log_likelihoods"],
                correct=np.unpackbits(arrays["correct"], axis=1, count=images).astype(bool),
                labels=arrays["labels"],
                macs=arrays["macs"],
                parameters=arrays["parameters"],
                prices=dict(zip(head["prices"], arrays["prices"], strict=True)),
                about=head["about"],
            )
        except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"{path} is not a replay ({type(error).__name__}: {error}): make it again with "
                "python bench/replay/make.py"
            ) from error


def saturated(log_likelihoods: npt.ArrayLike) -> npt.NDArray[np.float16]:
    """To 16 bits: rounded to 11 significant ones, and kept finite."""
    largest = float(np.finfo(np.float16).max)
    return np.clip(np.asarray(log_likelihoods), -largest, largest).astype(np.float16)
