"""TablePrices: a latency table as the search asks it, with its time split into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from vitresnas.errors import InputError
from vitresnas.latency import LatencyTable
from vitresnas.search.constraint import OF_TABLES, CostReach, Piece
from vitresnas.search.reach import cheapest, dearest, throughput_reach
from vitresnas.space import Architecture, Operation, SearchSpace

_MIXTURES = 21  # lower bounds of the larger of two sums: lambda * host + (1 - lambda) * device


class TablePrices:
    """Predicted throughput under one condition, remembered per network."""

    def __init__(self, table: LatencyTable, others: Sequence[LatencyTable] = ()) -> None:
        """others: further conditions of the same file, for the time at batch 1."""
        self.table, self._others = table, others
        self._weights = dict(table.calibration.coefficients)
        self._known: dict[Architecture, float] = {}
        self._split: dict[Operation, tuple[float, float, float]] = {}

    def images_per_second(self, architecture: Architecture) -> float:
        """Raises MissingLatency for a piece that the table does not price."""
        found = self._known.get(architecture)
        if found is None:
            found = self._known[architecture] = self.table.images_per_second(architecture)
        return found

    def images_per_second_of(self, pieces_milliseconds: float) -> float:
        milliseconds = self._weights.get("constant", 0.0) + pieces_milliseconds
        return 1000.0 * self.table.condition.batch_size / milliseconds

    def cost(self, name: str, architecture: Architecture) -> float:
        """A cost of `constraint.OF_TABLES`. Raises InputError where the table does not tell."""
        if name == "peak_memory":
            return self.table.peak_memory(architecture)
        if name == "energy":
            return self.table.joules_per_image(architecture)
        prices = self._at_batch_1 if name == "latency_batch_1" else self
        return 1000.0 * prices.table.condition.batch_size / prices.images_per_second(architecture)

    def cost_reach(self, name: str, space: SearchSpace) -> CostReach:
        """The range of such a cost over a space."""
        if name == "peak_memory":  # rises with every width and depth
            low, high = space.smallest, space.largest
            return CostReach(self.cost(name, low), self.cost(name, high), low)
        if name == "energy":
            low, high = cheapest(space, self._joules), dearest(space, self._joules)
            return CostReach(self.cost(name, low), self.cost(name, high), low)
        prices = self._at_batch_1 if name == "latency_batch_1" else self
        reach = throughput_reach(space, prices)
        batch = 1000.0 * prices.table.condition.batch_size
        return CostReach(batch / reach.bound, batch / reach.minimum, reach.fastest)

    def as_throughput(self, name: str, bound: float) -> tuple[TablePrices, float] | None:
        """The throughput that a bound on a time asks for, and what predicts it."""
        if name not in ("latency", "latency_batch_1"):
            return None
        prices = self._at_batch_1 if name == "latency_batch_1" else self
        return prices, 1000.0 * prices.table.condition.batch_size / bound

    def told(self) -> tuple[str, ...]:
        """The costs of `constraint.OF_TABLES` that these tables tell."""
        batch_1 = self._find_batch_1() is not None
        known = {"latency_batch_1": batch_1, "energy": self.table.energy is not None}
        return tuple(name for name in OF_TABLES if known.get(name, True))

    def _joules(self, operation: Operation) -> float:
        return self.table.joules_of(operation)

    @cached_property
    def _at_batch_1(self) -> TablePrices:
        table = self._find_batch_1()
        if table is None:
            condition = replace(self.table.condition, batch_size=1)
            raise InputError(
                "latency_batch_1 needs the condition of batch size 1 in the same file: add it with "
                f"`{condition.command()}`"
            )
        return TablePrices(table)

    def _find_batch_1(self) -> LatencyTable | None:
        condition = replace(self.table.condition, batch_size=1)
        for table in (self.table, *self._others):
            if table.condition.key == condition.key:
                return table
        return None

    @cached_property
    def pieces(self) -> Sequence[Piece]:
        """One sum where the calibration is linear; where it weighs the larger of host and device
        time, mixtures of both, none of which exceeds it."""
        if not self._weights.get("max"):
            return (lambda operation: self._prices(operation)[0],)
        return tuple(self._mixture(index / (_MIXTURES - 1)) for index in range(_MIXTURES))

    def _mixture(self, share: float) -> Piece:
        def piece(operation: Operation) -> float:
            linear, host, device = self._prices(operation)
            return linear + self._weights["max"] * (share * host + (1.0 - share) * device)

        return piece

    def _prices(self, operation: Operation) -> tuple[float, float, float]:
        """The weighted linear price of an operation, and its plain host and device times."""
        found = self._split.get(operation)
        if found is None:
            timing, statistic = self.table.timing(operation), self.table.calibration.statistic
            host, device = getattr(timing.host, statistic), getattr(timing.device, statistic)
            on_device = self._weights.get("device", 0.0) + self._weights.get(operation.kind, 0.0)
            linear = self._weights.get("host", 0.0) * host + on_device * device
            found = self._split[operation] = (linear, host, device)
        return found
