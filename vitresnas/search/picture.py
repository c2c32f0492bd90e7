"""search.png: every candidate's score against its speed, the front, the target, the winner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitresnas.files import atomic_path
from vitresnas.search.candidate import Candidate, Finalist
from vitresnas.search.result import SearchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CANDIDATE, _FRONT, _TARGET, _WINNER, _LARGEST = "#9db4c8", "#1f4e79", "#c0392b", "#e08e0b", "#555"


def draw(result: SearchResult, path: Path) -> None:
    """Write the picture of a search whose networks have predicted speeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_candidates(axes, result)
    _draw_front(axes, result)
    _draw_target(axes, result)
    _draw_largest(axes, result)
    _draw_winner(axes, result.best)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_plain_numbers())
    axes.yaxis.set_minor_formatter(_plain_numbers())
    axes.set_xlabel(_speed_label(result))
    axes.set_ylabel("hold-out negative log-likelihood (lower is better)")
    axes.set_title(_title(result), loc="left", fontsize=11)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower center", ncols=3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_candidates(axes: Axes, result: SearchResult) -> None:
    later = [candidate for found in result.rounds for candidate in found.candidates]
    speeds, losses = _points(result.history)
    label = f"{len(result.history)} candidates (predicted speed)"
    axes.scatter(speeds, losses, s=13, color=_CANDIDATE, linewidth=0, label=label)
    if later:
        speeds, losses = _points(later)
        label = f"{len(later)} after correction"
        axes.scatter(speeds, losses, s=13, color="#7fb98a", linewidth=0, label=label)


def _draw_front(axes: Axes, result: SearchResult) -> None:
    speeds, losses = _points([result.find(identifier) for identifier in result.pareto])
    axes.plot(speeds, losses, "-o", color=_FRONT, markersize=3.5, linewidth=1.2, label="front")


def _draw_target(axes: Axes, result: SearchResult) -> None:
    asked = result.target["requested"]
    bound = result.target["images_per_second"]
    label = f"target {asked}" + (f" = {bound:,.0f} images/s predicted" if "x" in asked else "")
    axes.axvline(bound, color=_TARGET, linewidth=1.4, linestyle="--", label=label)


def _draw_largest(axes: Axes, result: SearchResult) -> None:
    speeds, losses = _points([result.largest.candidate])
    axes.scatter(speeds, losses, s=55, marker="s", color=_LARGEST, label="largest network")


def _draw_winner(axes: Axes, winner: Finalist) -> None:
    speeds, losses = _points([winner.candidate])
    if winner.speed is None:
        axes.scatter(speeds, losses, s=40, marker="D", color=_WINNER, zorder=5, label="winner")
        return
    timed, (low, high) = winner.speed, winner.speed.interval_95
    axes.errorbar(
        [timed.images_per_second],
        losses,
        xerr=[[timed.images_per_second - low], [high - timed.images_per_second]],
        fmt="D",
        markersize=5,
        color=_WINNER,
        ecolor=_WINNER,
        elinewidth=2,
        capsize=8,
        capthick=2,
        zorder=5,
        label=f"winner, measured ({low:,.0f} to {high:,.0f})",
    )
    # The thread from the prediction to the measurement shows how far off the table was.
    axes.plot([speeds[0], timed.images_per_second], losses * 2, color=_WINNER, linewidth=0.8)
    axes.scatter(speeds, losses, s=60, facecolor="none", edgecolor=_WINNER, zorder=5)


def _points(candidates: Sequence[Candidate]) -> tuple[list[float], list[float]]:
    speeds = [candidate.predicted_images_per_second or 0.0 for candidate in candidates]
    return speeds, [candidate.score.negative_log_likelihood for candidate in candidates]


def _speed_label(result: SearchResult) -> str:
    target = result.target
    condition = f"batch {target['batch_size']}, {target['dtype']}, {target['runtime']}"
    return f"images per second on {target['device']} ({condition})"


def _title(result: SearchResult) -> str:
    winner = result.best
    words = [f"Target {result.target['requested']}: {result.verdict}"]
    if winner.speed is not None:
        words.append(f"{winner.speed.images_per_second:,.0f} images/s")
        words.append(f"{winner.speed.relative:.2f}x the largest")
    if winner.candidate.score.accuracy is not None:
        words.append(f"hold-out accuracy {winner.candidate.score.accuracy:.1%}")
    return "   ".join(words)


def _plain_numbers() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value:.3g}")
