"""search.png: every candidate's score against its speed, the front, the target, the winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitresnas.files import atomic_path
from vitresnas.search.result import SearchResult
from vitresnas.search.speed_axis import SpeedAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CANDIDATE, _FRONT, _TARGET, _WINNER, _LARGEST = "#9db4c8", "#1f4e79", "#c0392b", "#e08e0b", "#555"
_COMPARED = ("#7a4fa3", "#2a9d8f", "#8d6e63", "#d1495b")  # again from the first after these


def draw(result: SearchResult, path: Path) -> None:
    """Write the picture of a search whose networks have predicted speeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes, speed = figure.add_subplot(), SpeedAxis.of(result)
    _draw_candidates(axes, speed, result)
    _draw_front(axes, speed, result)
    _draw_target(axes, speed, result)
    _draw_largest(axes, speed, result)
    _draw_winner(axes, speed, result)
    _draw_compared(axes, speed, result)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_plain_numbers())
    axes.yaxis.set_minor_formatter(_plain_numbers())
    axes.set_xlabel(speed.label(result))
    axes.set_ylabel("hold-out negative log-likelihood (lower is better)")
    axes.set_title(_title(result), loc="left", fontsize=11)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower center", ncols=3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_candidates(axes: Axes, speed: SpeedAxis, result: SearchResult) -> None:
    later = [candidate for found in result.rounds for candidate in found.candidates]
    speeds, losses = speed.points(result.history)
    label = f"{len(result.history)} candidates (predicted speed)"
    axes.scatter(speeds, losses, s=13, color=_CANDIDATE, linewidth=0, label=label)
    if later:
        speeds, losses = speed.points(later)
        label = f"{len(later)} after correction"
        axes.scatter(speeds, losses, s=13, color="#7fb98a", linewidth=0, label=label)


def _draw_front(axes: Axes, speed: SpeedAxis, result: SearchResult) -> None:
    front = [result.find(identifier) for identifier in result.pareto]
    speeds, losses = speed.points(front)
    axes.plot(speeds, losses, "-o", color=_FRONT, markersize=3.5, linewidth=1.2, label="front")
    estimates = [candidate for candidate in front if result.estimated(candidate)]
    if estimates:
        speeds, losses = speed.points(estimates)
        label = "on the front by an estimate"
        axes.scatter(
            speeds, losses, s=12, zorder=3, facecolor="white", edgecolor=_FRONT, label=label
        )


def _draw_target(axes: Axes, speed: SpeedAxis, result: SearchResult) -> None:
    bound = result.target["images_per_second"] / speed.unit
    label = f"target {result.target['requested']}"
    axes.axvline(bound, color=_TARGET, linewidth=1.4, linestyle="--", label=label)


def _draw_largest(axes: Axes, speed: SpeedAxis, result: SearchResult) -> None:
    speeds, losses = speed.points([result.largest.candidate])
    axes.scatter(speeds, losses, s=55, marker="s", color=_LARGEST, label="largest network")


def _draw_winner(axes: Axes, speed: SpeedAxis, result: SearchResult) -> None:
    winner = result.best
    speeds, losses = speed.points([winner.candidate])
    if winner.speed is None:
        axes.scatter(speeds, losses, s=40, marker="D", color=_WINNER, zorder=5, label="winner")
        return
    timed, (low, high) = speed.measured(winner.speed)
    axes.errorbar(
        [timed],
        losses,
        xerr=[[timed - low], [high - timed]],
        fmt="D",
        markersize=5,
        color=_WINNER,
        ecolor=_WINNER,
        elinewidth=2,
        capsize=8,
        capthick=2,
        zorder=5,
        label=f"winner, measured ({speed.text(low)} to {speed.text(high)})",
    )
    # The thread from the prediction to the measurement shows how far off the table was.
    axes.plot([speeds[0], timed], losses * 2, color=_WINNER, linewidth=0.8)
    axes.scatter(speeds, losses, s=60, facecolor="none", edgecolor=_WINNER, zorder=5)


def _draw_compared(axes: Axes, speed: SpeedAxis, result: SearchResult) -> None:
    """Existing models have no score on these images, so each is a line; a far one, an arrow."""
    speeds, _ = speed.points(result.history)
    for number, found in enumerate(result.compared):
        colour = _COMPARED[number % len(_COMPARED)]
        if found.images_per_second is None:
            continue
        value = found.images_per_second / speed.unit
        if found.speed:
            value, _ = speed.measured(found.speed)
        label = f"{found.model.label} ({speed.text(value)})"
        if min(speeds) / 2 <= value <= 2 * max(speeds):
            axes.axvline(value, color=colour, linewidth=1.2, linestyle=":", label=label)
            continue
        end, marker = (0.0, "<") if value < min(speeds) else (1.0, ">")
        axes.plot(
            [end],
            [0.9 - 0.06 * number],
            marker,
            color=colour,
            label=label,
            transform=axes.transAxes,
            clip_on=False,
            zorder=6,
        )


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
