"""TablePrices: a latency table as the search asks it, with its time split into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from vitresnas.latency import LatencyTable
from vitresnas.search.reach import Piece
from vitresnas.space import Architecture, Operation

_MIXTURES = 21  # lower bounds of the larger of two sums: lambda * host + (1 - lambda) * device


class TablePrices:
    """Predicted throughput under one condition, remembered per network."""

    def __init__(self, table: LatencyTable) -> None:
        self.table = table
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
