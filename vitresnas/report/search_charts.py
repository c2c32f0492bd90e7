"""The charts of a search: the front, the history, and the table against the clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vitresnas.report.chart import Chart, Point, Series
from vitresnas.report.intervals import Intervals, Row
from vitresnas.report.scale import Axis
from vitresnas.report.words import summarise
from vitresnas.search.candidate import Candidate, Finalist, Speed
from vitresnas.search.result import SearchResult
from vitresnas.search.speed_axis import SpeedAxis

# By the number of its parents; what crosses two networks may mutate their child as well.
ORIGINS = ("drawn at random", "mutated from one", "crossed from two")
_LONGEST = 26  # characters beside a row


@dataclass(frozen=True)
class SearchCharts:
    """Speed stands in the target's own unit; without predicted speeds, MACs stand for it."""

    result: SearchResult

    @property
    def speed(self) -> SpeedAxis:
        return SpeedAxis.of(self.result)

    @property
    def by_speed(self) -> bool:
        return all(found.predicted_images_per_second for found in self.result.history)

    def front(self) -> Chart:
        result, best = self.result, self.result.best
        leading = sorted((result.find(i) for i in result.pareto), key=self._cost)
        front = {found.id for found in leading}
        estimates = [found for found in leading if result.estimated(found)]
        scored = [found for found in leading if not result.estimated(found)]
        others = [c for c in result.history if c.id not in front]
        losses = [c.score.negative_log_likelihood for c in leading]
        # Over more than two objectives the front is no line in this plane.
        plane = losses in (sorted(losses), sorted(losses, reverse=True))
        line = self._points(leading) if plane else ()
        label = f"predicted speed, {self.speed.words}" if self.by_speed else "MACs per image"
        return Chart(
            "Score against speed" if self.by_speed else "Score against MACs",
            Axis(label),
            Axis("hold-out negative log-likelihood (lower is better)", log=True),
            (
                Series("candidate", self._points(others), colour="quiet"),
                Series("after correction", self._points(later(result)), "triangles", "c2"),
                Series("", line, "line", "strong"),
                Series("front", self._points(scored), colour="strong"),
                Series("front, estimated", self._points(estimates), "rings", "strong"),
                Series("largest network", (self._largest(),), "squares", "plain"),
                Series("winner", (self._winner(best),), "stars", "accent"),
            ),
            "Hover for the network, click to compare two. "
            + ("The winner's whiskers: its measured speed, 95 %." if best.speed else ""),
            verticals=self._target(),
        )

    def history(self) -> Chart:
        found = tuple(enumerate(self.result.history, 1))
        best, line = float("inf"), []
        for number, candidate in found:
            if self._meets(candidate) and candidate.score.negative_log_likelihood < best:
                best = candidate.score.negative_log_likelihood
                line.append(Point(number, best))
        if line:
            line.append(Point(len(found), best))
        origins = [
            Series(
                name,
                tuple(
                    self._point(c, n, c.score.negative_log_likelihood)
                    for n, c in found
                    if min(len(c.parents), 2) == parents
                ),
                ("dots", "triangles", "diamonds")[parents],
                ("quiet", "c4", "c3")[parents],
            )
            for parents, name in enumerate(ORIGINS)
        ]
        fast = " that meets the target" if self.result.target else ""
        return Chart(
            "History of the search",
            Axis("networks scored"),
            Axis("hold-out negative log-likelihood", log=True),
            (*origins, Series(f"best so far{fast}", tuple(line), "steps", "strong")),
        )

    def agreement(self) -> Chart:
        """Predicted against measured; only of a search with a table and a proof."""
        points = []
        for finalist in timed(self.result):
            assert finalist.speed is not None
            predicted = self.speed.predicted(finalist.candidate)
            value, interval = self.speed.measured(finalist.speed)
            points.append(self._point(finalist.candidate, predicted, value, y_range=interval))
        return Chart(
            "Predicted against measured speed",
            Axis(f"predicted, {self.speed.words}"),
            Axis(f"measured, {self.speed.words}"),
            (Series("finalists and the largest network", tuple(points), colour="strong"),),
            "On the dashed line the latency table was right on the day of the proof; whiskers: "
            "95 % interval of the median.",
            diagonal=True,
        )

    def speeds(self) -> Intervals:
        """Everything that was timed, fastest first."""
        result, rows = self.result, []
        for finalist in timed(result):
            assert finalist.speed is not None
            candidate = finalist.candidate
            value, interval = self.speed.measured(finalist.speed)
            style, colour, name = "dots", "strong", ""
            if candidate.id == result.best.candidate.id:
                style, colour, name = "stars", "accent", "winner "
            elif candidate.id == result.largest.candidate.id:
                style, colour, name = "squares", "plain", "largest "
            predicted = self.speed.predicted(candidate)
            rows.append(
                Row(
                    f"{name}{candidate.id}",
                    self._words(finalist.speed),
                    value,
                    interval,
                    predicted,
                    style,
                    colour,
                    candidate.id,
                )
            )
        rows += [self._beside(one.model.label, one.speed) for one in result.compared if one.speed]
        return Intervals(
            "Timed beside each other",
            f"measured speed, {self.speed.words}",
            tuple(sorted(rows, key=lambda row: -row.value)),
            verticals=self._target(),
            note="Median and 95 % interval; rings: what the latency table predicted.",
        )

    def _beside(self, name: str, speed: Speed) -> Row:
        """An existing model."""
        value, interval = self.speed.measured(speed)
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        return Row(short, self._words(speed), value, interval, None, "diamonds", "c3", name)

    def _words(self, speed: Speed) -> str:
        value, interval = self.speed.measured(speed)
        return f"{self.speed.text(value)} ({' to '.join(map(self.speed.text, interval))})"

    def _target(self) -> tuple[tuple[float, str], ...]:
        target = self.result.target
        if not target or not self.by_speed:
            return ()
        bound = float(target["images_per_second"]) / self.speed.unit
        return ((bound, f"target {target['requested']}"),)

    def _meets(self, candidate: Candidate) -> bool:
        speed = candidate.predicted_images_per_second or 0.0
        return speed >= float(self.result.target.get("images_per_second") or 0.0)

    def _cost(self, candidate: Candidate) -> float:
        return self.speed.predicted(candidate) if self.by_speed else float(candidate.macs)

    def _largest(self) -> Point:
        (point,) = self._points([self.result.largest.candidate])
        return point

    def _winner(self, best: Finalist) -> Point:
        candidate, interval = best.candidate, None
        if best.speed and self.by_speed:
            _, interval = self.speed.measured(best.speed)
        return Point(
            self._cost(candidate),
            candidate.score.negative_log_likelihood,
            summarise(candidate),
            candidate.id,
            x_range=interval,
        )

    def _points(self, found: Iterable[Candidate]) -> tuple[Point, ...]:
        return tuple(self._point(c, self._cost(c), c.score.negative_log_likelihood) for c in found)

    def _point(
        self, c: Candidate, x: float, y: float, y_range: tuple[float, float] | None = None
    ) -> Point:
        return Point(x, y, summarise(c), c.id, y_range=y_range)


def later(result: SearchResult) -> Sequence[Candidate]:
    """Scored after the proof taught how far off the table was."""
    return [candidate for found in result.rounds for candidate in found.candidates]


def timed(result: SearchResult) -> list[Finalist]:
    """Whatever the proof timed, the last round's figures where a network was in several."""
    found = {f.candidate.id: f for r in result.rounds for f in r.finalists if f.speed}
    if result.best.speed:
        found[result.best.candidate.id] = result.best
    if result.largest.speed and result.largest.candidate.predicted_images_per_second:
        found[result.largest.candidate.id] = result.largest
    return list(found.values())
