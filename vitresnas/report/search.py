"""A finished search to look at: the front, the history, what was measured, the winner."""

from __future__ import annotations

from vitresnas.report.chart import Axis, Chart, Point, Series, number
from vitresnas.report.page import charts, facts, page, section, table, text
from vitresnas.report.words import describe
from vitresnas.search.candidate import Candidate, Finalist
from vitresnas.search.result import SearchResult
from vitresnas.space.architecture import Architecture
from vitresnas.space.operations import macs, operations, parameters

PINS = (
    '<div id="pins"><pre>click a point to pin it here</pre><pre>and another to compare</pre></div>'
)


def search_page(result: SearchResult, name: str) -> str:
    """The page of a search result. `name`: the file's."""
    target = result.target
    wanted = str(target.get("requested", "the best score"))
    speed = wanted if not target or target.get("relative") else f"{wanted} images/s"
    best = result.best
    measured = (
        f"{best.speed.images_per_second:,.0f} images/s ({best.speed.relative:.2f}x the largest "
        f"network; 95 % interval {best.speed.relative_interval_95[0]:.2f} to "
        f"{best.speed.relative_interval_95[1]:.2f})"
        if best.speed
        else "not measured"
    )
    where = (
        f" on {target['device']}, batch {target['batch_size']}, {target['dtype']}" if target else ""
    )
    return page(
        f"Search for {speed}: {result.verdict}",
        f"{name}: {best.candidate.id}, {measured}{where}; hold-out negative log-likelihood "
        f"{best.candidate.score.negative_log_likelihood:.4f}.",
        (
            section("Candidates", charts(_front(result), _history(result)), PINS),
            section("Predicted against measured", charts(_measured(result))),
            section("The winner, stage by stage", _stages(best.candidate.architecture)),
            section("Finalists", _finalists(result)),
            section("Settings", facts(result.settings)),
            section(
                "Time and environment", facts({"seconds": result.seconds, **result.environment})
            ),
        ),
    )


def _point(candidate: Candidate, x: float, y: float) -> Point:
    speed = candidate.predicted_images_per_second
    words = [
        describe(candidate.architecture),
        f"negative log-likelihood {candidate.score.negative_log_likelihood:.4f} "
        f"on {candidate.score.images} images",
        f"predicted {speed:,.0f} images/s" if speed else "speed not predicted",
        f"{number(candidate.macs)} MACs, {number(candidate.parameters)} parameters",
    ]
    return Point(x, y, "\n".join(words), candidate.id)


def _front(result: SearchResult) -> Chart:
    best, front = result.best.candidate, set(result.pareto)

    def points(found: list[Candidate]) -> tuple[Point, ...]:
        return tuple(_point(c, _speed(c), c.score.negative_log_likelihood) for c in found)

    others = [c for c in result.history if c.id not in front]
    leading = sorted((c for c in result.history if c.id in front), key=_speed)
    target = result.target.get("images_per_second")
    return Chart(
        "Score against speed",
        Axis("predicted images per second"),
        Axis("negative log-likelihood (lower is better)"),
        (
            Series("candidate", points(others), colour="#9db4c8"),
            Series("front", points(leading), style="line", colour="#1f4e79"),
            Series("", points(leading), colour="#1f4e79"),
            Series("winner", points([best]), style="stars", colour="#e08e0b"),
        ),
        "Every network that was scored. Hover for its architecture; click to pin and compare two.",
        verticals=((float(target), "target"),) if target else (),
    )


def _history(result: SearchResult) -> Chart:
    dots = tuple(
        _point(c, number, c.score.negative_log_likelihood)
        for number, c in enumerate(result.history, 1)
    )
    best, line = float("inf"), []
    wanted = result.target.get("images_per_second") or 0.0
    for index, candidate in enumerate(result.history, 1):
        if _speed(candidate) >= wanted:
            best = min(best, candidate.score.negative_log_likelihood)
        if best < float("inf"):
            line.append(Point(index, best))
    return Chart(
        "History",
        Axis("networks scored"),
        Axis("negative log-likelihood"),
        (
            Series("candidate", dots, colour="#9db4c8"),
            Series(
                "best so far that meets the target", tuple(line), style="line", colour="#1f4e79"
            ),
        ),
    )


def _measured(result: SearchResult) -> Chart:
    points = []
    for finalist in _timed(result):
        assert finalist.speed is not None
        predicted, found = _speed(finalist.candidate), finalist.speed.images_per_second
        mark = _point(finalist.candidate, predicted, found)
        points.append(
            Point(predicted, found, f"{mark.text}\nmeasured {found:,.0f} images/s", mark.key)
        )
    return Chart(
        "Finalists and the largest network",
        Axis("predicted images per second"),
        Axis("measured images per second"),
        (Series("", tuple(points)),),
        "On the dashed line the latency table was right on the day of the proof.",
        diagonal=True,
    )


def _timed(result: SearchResult) -> list[Finalist]:
    found = {f.candidate.id: f for r in result.rounds for f in r.finalists if f.speed}
    if result.largest.speed and result.largest.candidate.predicted_images_per_second:
        found[result.largest.candidate.id] = result.largest
    return list(found.values())


def _finalists(result: SearchResult) -> str:
    rows = []
    for finalist in _timed(result):
        candidate, speed = finalist.candidate, finalist.speed
        assert speed is not None
        rows.append(
            (
                candidate.id,
                f"{candidate.score.negative_log_likelihood:.4f}",
                ""
                if candidate.score.accuracy is None
                else f"{100 * candidate.score.accuracy:.1f} %",
                f"{_speed(candidate):,.0f}",
                f"{speed.images_per_second:,.0f} ({speed.interval_95[0]:,.0f} to "
                f"{speed.interval_95[1]:,.0f})",
                f"{speed.relative:.2f}x",
                number(candidate.macs),
                number(candidate.parameters),
            )
        )
    head = (
        "network",
        "NLL",
        "hold-out",
        "predicted",
        "measured (95 %)",
        "largest",
        "MACs",
        "params",
    )
    return table(head, rows) if rows else text("nothing was timed")


def _stages(architecture: Architecture) -> str:
    """A bar per block: as high as its hidden width, labelled with its heads."""
    widest = max((b.hidden for s in architecture.stages for b in s.blocks if b), default=1)
    left, parts = 10, []
    for index, stage in enumerate(architecture.stages):
        begin = left
        for block in stage.blocks:
            high = 120 * block.hidden / widest if block else 2
            label = f"{block.heads} heads, {block.hidden} hidden" if block else "skipped"
            fill = "#1f4e79" if block else "#c8d2dc"
            parts.append(
                f'<rect class="point" data-text="{label}" data-key="" tabindex="0" x="{left}" '
                f'y="{140 - high:.1f}" width="22" height="{high:.1f}" fill="{fill}"/>'
                f'<text x="{left + 11}" y="154" class="x">{block.heads if block else "-"}</text>'
            )
            left += 28
        words = f"{architecture.tokens[index]} tokens x {stage.embed}"
        parts.append(f'<text x="{(begin + left) / 2}" y="172" class="x label">{words}</text>')
        left += 24
    total = operations(architecture)
    kinds: dict[str, int] = {}
    for operation in total:
        kinds[operation.kind] = kinds.get(operation.kind, 0) + operation.macs
    summary = text(
        f"{number(macs(architecture))} MACs, {number(parameters(architecture))} parameters. "
        + ", ".join(f"{kind} {100 * n / macs(architecture):.0f} %" for kind, n in kinds.items())
        + " of the MACs."
    )
    return (
        f'<svg viewBox="0 0 {left} 180" style="max-width:{left * 1.4:.0f}px">{"".join(parts)}</svg>'
        + text("Bars: hidden width of each block; below them its heads.")
        + summary
    )


def _speed(candidate: Candidate) -> float:
    return candidate.predicted_images_per_second or 0.0
