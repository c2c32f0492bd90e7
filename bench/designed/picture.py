"""against_designed.png: the hold-out while each contestant trains, and what came out by speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitresnas.files import JsonObject, atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#e08e0b", "#5f7a8c", "#7a4fa3", "#2a9d8f", "#c0392b", "#8d6e63")
_GRID = "#e6e6e6"


def draw(document: JsonObject, path: Path) -> None:
    """Write the picture of a finished comparison."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for row, colour in zip(document["contestants"], _COLOURS, strict=False):
        _draw_curve(left, row, colour)
        _draw_result(right, row, colour)
    left.set_yscale("log")
    for axis in (left.yaxis, right.yaxis):
        axis.set_major_formatter(_plain_numbers())
        axis.set_minor_formatter(_plain_numbers())
    left.set_xlabel("seconds of training")
    left.set_ylabel("hold-out negative log-likelihood (lower is better)")
    right.set_xlabel("images per second, measured")
    right.set_ylabel("test accuracy, %")
    left.set_title(_title(document), loc="left", fontsize=10)
    right.set_title("bars: 95 % intervals", loc="left", fontsize=10)
    for axes in (left, right):
        axes.grid(True, which="major", color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8.5, loc="outside lower center", ncols=2)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_curve(axes: Axes, row: JsonObject, colour: str) -> None:
    points = row["curve"]
    axes.plot(
        [point["seconds"] for point in points],
        [point["negative_log_likelihood"] for point in points],
        "-o",
        color=colour,
        markersize=3,
        linewidth=1.3,
        label=f"{row['contestant']}: {row['what']}, {row['epochs']} epochs",
    )


def _draw_result(axes: Axes, row: JsonObject, colour: str) -> None:
    low, high = row["interval_95"]
    worst, best = (100 * end for end in row["test_accuracy_interval_95"])
    speed, accuracy = row["images_per_second"], 100 * row["test_accuracy"]
    axes.errorbar(
        [speed],
        [accuracy],
        xerr=[[speed - low], [high - speed]],
        yerr=[[accuracy - worst], [best - accuracy]],
        fmt="D",
        color=colour,
        markersize=5,
        capsize=3,
    )
    axes.annotate(
        row["contestant"], (speed, accuracy), xytext=(6, 6), textcoords="offset points", fontsize=9
    )


def _title(document: JsonObject) -> str:
    target = document["target"]
    return (
        f"{document['space']['name']}, {document['data']['name']}: at {target['requested']}, "
        f"batch {target['batch_size']}, {target['dtype']}, {target['runtime']}"
    )


def _plain_numbers() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value:.3g}")
