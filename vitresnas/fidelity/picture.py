"""fidelity.png: ranks by inherited weights against ranks by training alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitresnas.fidelity.result import Agreement, FidelityResult
from vitresnas.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "negative_log_likelihood": "Likelihood",
    "calibrated": "Likelihood, calibrated",
}


def draw(result: FidelityResult, path: Path) -> None:
    """Two rank scatters side by side: the likelihood as it is, and at every network's best
    temperature."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(TITLES), sharey=False)
    for axes, found in zip(panels, result.agreements, strict=False):
        _panel(axes, result, found)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        title="channels of the last stage",
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _panel(axes: Axes, result: FidelityResult, found: Agreement) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    networks = result.networks
    inherited = ranks([getattr(network.inherited, found.measure) for network in networks])
    alone = ranks([getattr(network.first, found.measure) for network in networks])
    widths = [network.architecture.stages[-1].embed for network in networks]
    choices = sorted(set(widths))
    axes.plot([1, len(networks)], [1, len(networks)], "--", color="#9aa7b2", linewidth=1, zorder=1)
    for index, width in enumerate(choices):
        chosen = [n for n, one in enumerate(widths) if one == width]
        axes.scatter(
            inherited[chosen],
            alone[chosen],
            s=58,
            marker="osD^vP"[index % 6],
            color=colormaps["viridis"](0.92 * index / max(len(choices) - 1, 1)),
            edgecolor="white",
            linewidth=0.8,
            zorder=2,
            label=str(width),
        )
    low, high = found.interval_95
    attainable = f"; attainable {found.attainable_tau:.2f}" if found.attainable_tau else ""
    axes.set_title(
        f"{TITLES[found.measure]}\nKendall tau {found.kendall_tau:.2f} "
        f"({low:.2f} to {high:.2f}{attainable})",
        loc="left",
        fontsize=10.5,
    )
    axes.set_xlabel("rank with inherited weights (1 is best)")
    axes.set_ylabel("rank trained alone")
    axes.set_box_aspect(1)
    axes.set(xlim=(0.2, len(networks) + 0.8), ylim=(0.2, len(networks) + 0.8))
    axes.grid(True, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(8, integer=True))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def ranks(values: list[float]) -> np.ndarray:
    """1 for the lowest, the least loss; ties share the mean of their ranks."""
    array = np.asarray(values, dtype=float)
    below = (array[None, :] < array[:, None]).sum(1)
    equal = (array[None, :] == array[:, None]).sum(1)
    mean: np.ndarray = below + (equal + 1) / 2
    return mean
