"""A space, a price and a score made of formulas: everything of a search but torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from vitresnas.search.candidate import Candidate, Score
from vitresnas.search.constraint import AdditiveThroughput, CostReach, Piece
from vitresnas.space import (
    Architecture,
    AttentionOperation,
    MlpOperation,
    Operation,
    SearchSpace,
    load_space,
    macs,
    operations,
    parameters,
)
from vitresnas.space.architecture import Embedding
from vitresnas.space.search_space import StageChoices


class FormulaPrices:
    """Time as MACs plus a start-up cost per piece, and a made-up penalty on some widths, so that
    the narrowest network is not the fastest."""

    def __init__(self, batch_size: int = 32) -> None:
        self.batch_size = batch_size

    @staticmethod
    def piece(operation: Operation) -> float:
        penalty = 1.0
        if isinstance(operation, AttentionOperation) and operation.heads == 2:
            penalty = 3.0
        if isinstance(operation, MlpOperation) and operation.width in (32, 128):
            penalty = 2.0
        return penalty * (operation.macs * 1e-7 + 0.02)

    @property
    def pieces(self) -> Sequence[Piece]:
        return (self.piece,)

    def milliseconds(self, architecture: Architecture) -> float:
        return sum(self.piece(operation) for operation in operations(architecture))

    def images_per_second(self, architecture: Architecture) -> float:
        return 1000 * self.batch_size / self.milliseconds(architecture)

    def images_per_second_of(self, pieces_milliseconds: float) -> float:
        return 1000 * self.batch_size / pieces_milliseconds


class FullPrices(FormulaPrices):
    """Prices that tell latency, peak memory and energy, too."""

    def cost(self, name: str, architecture: Architecture) -> float:
        if name == "latency":
            return self.milliseconds(architecture)
        if name == "energy":
            return 1e-6 * macs(architecture)
        return 1e6 + 4.0 * parameters(architecture)

    def cost_reach(self, name: str, space: SearchSpace) -> CostReach:
        ends = (space.smallest, space.largest)
        return CostReach(0.5 * self.cost(name, ends[0]), self.cost(name, ends[1]), ends[0])

    def as_throughput(self, name: str, bound: float) -> tuple[AdditiveThroughput, float] | None:
        return (self, 1000.0 * self.batch_size / bound) if name == "latency" else None

    def told(self) -> tuple[str, ...]:
        return "latency", "peak_memory", "energy"


@pytest.fixture(scope="session")
def full_prices() -> FullPrices:
    return FullPrices()


@pytest.fixture(scope="session")
def formula_score() -> Callable[[Architecture], Score]:
    """Bigger is better, except that every network has a whim of its own, from its id."""

    def score(architecture: Architecture) -> Score:
        whim = int(architecture.id[:6], 16) / 0xFFFFFF
        loss = 1e7 / (macs(architecture) + 1e6) + 0.2 * whim
        return Score(loss, accuracy=1 / (1 + loss), images=10)

    return score


@pytest.fixture
def candidate_of() -> Callable[..., Candidate]:
    """A candidate with a loss and a predicted speed given by hand."""

    def make(architecture: Architecture, loss: float, speed: float | None) -> Candidate:
        score = Score(loss, 0.5, 10)
        return Candidate(architecture, score, speed, macs(architecture), parameters(architecture))

    return make


@pytest.fixture(scope="session")
def digits() -> SearchSpace:
    return load_space("digits")


@pytest.fixture
def prices() -> FormulaPrices:
    return FormulaPrices()


@pytest.fixture
def handful() -> SearchSpace:
    """24 networks in all."""
    stages = (
        StageChoices((24, 16), 8, 2, (2,), (48, 32), (2,)),
        StageChoices((48, 32), 8, 1, (2,), (64,), ()),
    )
    return SearchSpace("handful", 16, 4, Embedding("convolutional", 8), stages, classes=5)
