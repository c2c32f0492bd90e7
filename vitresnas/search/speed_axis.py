"""The axis of speed that pictures of a search share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitresnas.search.candidate import Candidate, Speed
from vitresnas.search.result import SearchResult


@dataclass(frozen=True)
class SpeedAxis:
    """The target's own unit: images per second, or times the largest network.

    A target of `Nx` is judged within one run; on this axis so are its pictures, however fast the
    machine was on that day.
    """

    relative: bool
    unit: float  # images per second by prediction

    @classmethod
    def of(cls, result: SearchResult) -> SpeedAxis:
        largest = result.largest.candidate.predicted_images_per_second
        relative = bool(result.target.get("relative")) and bool(largest)
        return cls(relative, (largest or 1.0) if relative else 1.0)

    def points(self, candidates: Sequence[Candidate]) -> tuple[list[float], list[float]]:
        """Predicted speeds and losses."""
        losses = [found.score.negative_log_likelihood for found in candidates]
        return [self.predicted(found) for found in candidates], losses

    @property
    def words(self) -> str:
        """The unit, for a label."""
        return "times the largest network's" if self.relative else "images per second"

    def predicted(self, candidate: Candidate) -> float:
        return (candidate.predicted_images_per_second or 0.0) / self.unit

    def measured(self, speed: Speed) -> tuple[float, tuple[float, float]]:
        """A measured speed and its 95 % interval."""
        if self.relative:
            return speed.relative, speed.relative_interval_95
        return speed.images_per_second, speed.interval_95

    def text(self, value: float) -> str:
        return f"{value:.2f}x" if self.relative else f"{value:,.0f}"

    def label(self, result: SearchResult) -> str:
        target = result.target
        condition = f"batch {target['batch_size']}, {target['dtype']}, {target['runtime']}"
        if self.relative:
            what = f"speed, times the largest network's ({self.unit:,.0f} images/s predicted)"
        else:
            what = "images per second"
        return f"{what}\non {target['device']} ({condition})"
