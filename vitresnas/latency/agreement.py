"""Do two conditions of one space agree on what is fast, and on what to choose? No torch in here.

`other` is the condition whose table is used, `right` the one that networks will run under.
    ranks      Kendall's tau: right's held-out networks as measured, ranked by other's table, by
               right's own and by MACs; and uniform draws of the space, predicted by both tables.
               Each condition has its own networks, evenly spaced in its own time.
    choices    the best network at ten targets, and what other's table would have chosen instead

There is no super-network in here, so MACs stand in for the score: they are exact, the same under
both conditions, and within one space a network that computes more scores better on average. The
best at a target is the candidate with the most MACs among those that right's table predicts fast
enough. Who has other's table alone and wants the same score takes the candidate that it predicts
fastest among those with at least as many MACs. How much longer that one takes under right is the
loss: never negative, and no scale between the conditions enters it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from vitresnas.files import JsonObject
from vitresnas.latency.condition import Condition
from vitresnas.latency.statistics import kendall_tau, kendall_tau_interval_95
from vitresnas.latency.table import LatencyTable
from vitresnas.space.architecture import Architecture
from vitresnas.space.operations import macs
from vitresnas.space.search_space import SearchSpace

TARGETS = 10
_GENERATIONS = 4
_MUTATION = 0.1
_DIGITS = 9  # of milliseconds: the order in which equal pieces are summed must not tell them apart


@dataclass(frozen=True)
class Rank:
    """Agreement of two orders of the same networks, with its 95 % bootstrap interval."""

    networks: int
    tau: float
    interval_95: tuple[float, float]

    @classmethod
    def of(cls, a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Rank:
        return cls(len(a), kendall_tau(a, b), kendall_tau_interval_95(a, b))

    def __str__(self) -> str:
        low, high = self.interval_95
        return f"{self.tau:.3f} [{low:.3f}, {high:.3f}]"

    def to_json(self) -> JsonObject:
        return {
            "networks": self.networks,
            "kendall_tau": round(self.tau, 6),
            "interval_95": [round(end, 6) for end in self.interval_95],
        }


@dataclass(frozen=True)
class Candidate:
    """A network, and what a table predicts for it under the right condition."""

    architecture: Architecture
    macs: int
    milliseconds: float

    def to_json(self) -> JsonObject:
        return {
            "id": self.architecture.id,
            "architecture": self.architecture.to_json(),
            "macs": self.macs,
            "predicted_milliseconds": round(self.milliseconds, 6),
        }


@dataclass(frozen=True)
class Choice:
    """One target: the best network by the right table, and two ways to be wrong.

    `rival`: the other table's choice at the same score. `taken`: its choice when its images per
    second are believed as they stand; None where it holds nothing for fast enough.
    """

    images_per_second: float
    best: Candidate
    rival: Candidate
    taken: Candidate | None
    batch_size: int

    @property
    def differs(self) -> bool:
        return self.best.architecture != self.rival.architecture

    @property
    def longer_percent(self) -> float:
        """How much longer the rival takes than the best, under the right condition."""
        return 100.0 * (self.rival.milliseconds / self.best.milliseconds - 1.0)

    @property
    def off_target_percent(self) -> float | None:
        """By how much the taken network's throughput lies above or below the target."""
        if self.taken is None:
            return None
        speed = 1000.0 * self.batch_size / self.taken.milliseconds
        return 100.0 * (speed / self.images_per_second - 1.0)

    def to_json(self) -> JsonObject:
        off = self.off_target_percent
        return {
            "target_images_per_second": round(self.images_per_second, 3),
            "best": self.best.to_json(),
            "by_the_other_table": self.rival.to_json(),
            "differs": self.differs,
            "longer_percent": round(self.longer_percent, 4),
            "numbers_as_they_are": self.taken and self.taken.to_json(),
            "off_target_percent": None if off is None else round(off, 4),
        }


@dataclass(frozen=True)
class Agreement:
    """How far the table of `other` serves under `right`."""

    right: Condition
    other: Condition
    measured_by_other: Rank
    measured_by_own: Rank
    measured_by_macs: Rank
    sample: Rank
    choices: tuple[Choice, ...]
    error_percent: float  # of right's own table, on its held-out networks

    @property
    def differing(self) -> tuple[Choice, ...]:
        return tuple(choice for choice in self.choices if choice.differs)

    @property
    def beyond_error(self) -> tuple[Choice, ...]:
        """Differences that cost more than the mean error of the table that judges them."""
        return tuple(one for one in self.differing if one.longer_percent > self.error_percent)

    def to_json(self) -> JsonObject:
        return {
            "right": self.right.to_json(),
            "other": self.other.to_json(),
            "measured_ranked_by_other": self.measured_by_other.to_json(),
            "measured_ranked_by_own": self.measured_by_own.to_json(),
            "measured_ranked_by_macs": self.measured_by_macs.to_json(),
            "uniform_draws": self.sample.to_json(),
            "targets": len(self.choices),
            "targets_where_the_best_differs": len(self.differing),
            "targets_where_it_costs_more_than_the_error": len(self.beyond_error),
            "error_percent": round(self.error_percent, 6),
            "worst_longer_percent": round(max(c.longer_percent for c in self.choices), 4),
            "choices": [choice.to_json() for choice in self.choices],
        }


def agreements(
    tables: Sequence[LatencyTable], space: SearchSpace, *, draws: int = 1000, seed: int = 0
) -> tuple[Agreement, ...]:
    """Every table of `space` in the place of every other one.

    `draws`: uniform draws that are ranked; about seven times as many candidates compete for the
    targets. Raises MissingLatency where a table does not hold all of the space.
    """
    rng = Random(seed)
    pool = _Pool(tables)
    sample = [space.sample(rng) for _ in range(draws)]
    pool.add(sample)
    ranked = pool.rows(sample)
    pool.spread(space, draws, rng)
    return tuple(
        _agreement(tables, right, other, ranked, pool)
        for right in range(len(tables))
        for other in range(len(tables))
        if right != other
    )


def _agreement(
    tables: Sequence[LatencyTable], right: int, other: int, ranked: np.ndarray, pool: _Pool
) -> Agreement:
    own, wrong = tables[right], tables[other]
    pairs = own.validation.pairs + own.validation_uniform.pairs
    networks = [pair.architecture for pair in pairs]
    measured = [pair.measured for pair in pairs]
    return Agreement(
        right=own.condition,
        other=wrong.condition,
        measured_by_other=Rank.of([wrong.milliseconds(one) for one in networks], measured),
        measured_by_own=Rank.of([pair.predicted for pair in pairs], measured),
        measured_by_macs=Rank.of([float(macs(one)) for one in networks], measured),
        sample=Rank.of(ranked[:, 1 + right], ranked[:, 1 + other]),
        choices=pool.choices(right, other, own.condition.batch_size, wrong.condition.batch_size),
        error_percent=own.validation.mean_absolute_percentage_error,
    )


class _Pool:
    """Candidates with their MACs and what every table predicts for them, in milliseconds."""

    def __init__(self, tables: Sequence[LatencyTable]) -> None:
        self._tables = tables
        self._known: dict[Architecture, tuple[float, ...]] = {}

    def add(self, networks: Sequence[Architecture]) -> None:
        for one in networks:
            if one not in self._known:
                times = (round(table.milliseconds(one), _DIGITS) for table in self._tables)
                self._known[one] = (float(macs(one)), *times)

    def rows(self, networks: Sequence[Architecture]) -> np.ndarray:
        """(networks, 1 + tables): MACs, then milliseconds by every table."""
        return np.array([self._known[one] for one in networks])

    def spread(self, space: SearchSpace, draws: int, rng: Random) -> None:
        """Towards both ends of the space, then around what is best by any of the tables.

        All tables choose from the same pool, so that luck in finding candidates favours none.
        """
        for end in (space.smallest, space.largest):
            self.add([end, *(space.mutate(end, rng, rng.random()) for _ in range(draws))])
        for _ in range(_GENERATIONS):
            networks = list(self._known)
            rows = self.rows(networks)
            best = sorted({i for t in range(len(self._tables)) for i in _front(rows, 1 + t)})
            parents = (networks[rng.choice(best)] for _ in range(draws))
            self.add([space.mutate(parent, rng, _MUTATION) for parent in parents])

    def choices(
        self, right: int, other: int, batch_size: int, other_batch_size: int
    ) -> tuple[Choice, ...]:
        """At targets evenly spaced in log throughput between the ends of the right condition."""
        networks = list(self._known)
        rows = self.rows(networks)
        work, own, wrong = rows[:, 0], rows[:, 1 + right], rows[:, 1 + other]

        def candidate(index: int) -> Candidate:
            return Candidate(networks[index], int(work[index]), float(own[index]))

        found = []
        for step in range(TARGETS):
            limit = own.max() * (own.min() / own.max()) ** ((step + 0.5) / TARGETS)
            target = float(1000.0 * batch_size / limit)
            best = _most_work(work, own, limit)
            assert best is not None  # the fastest of all is below every limit
            enough = np.flatnonzero(work >= work[best])
            rival = int(enough[np.argmin(wrong[enough])])
            taken = _most_work(work, wrong, 1000.0 * other_batch_size / target)
            found.append(
                Choice(
                    target,
                    candidate(best),
                    candidate(rival),
                    None if taken is None else candidate(taken),
                    batch_size,
                )
            )
        return tuple(found)


def _most_work(work: np.ndarray, times: np.ndarray, limit: float) -> int | None:
    """The candidate with the most MACs within a limit, the fastest of equals; None without any."""
    within = np.flatnonzero(times <= limit)
    if not len(within):
        return None
    return int(within[np.lexsort((times[within], -work[within]))[0]])


def _front(rows: np.ndarray, column: int) -> list[int]:
    """Candidates that no other one beats in both MACs (more) and time (less)."""
    order = np.lexsort((-rows[:, 0], rows[:, column]))
    front, most = [], -1.0
    for index in order:
        if rows[index, 0] > most:
            front.append(int(index))
            most = float(rows[index, 0])
    return front
