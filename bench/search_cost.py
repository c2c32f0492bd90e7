"""What a search costs: image evaluations against the true rank of what it finds, on the replay.

    python bench/search_cost.py --out bench/results/replay/search_cost.json
    python bench/search_cost.py --plot bench/results/replay/search_cost.json

Every strategy searches bench/replay under three throughput targets with every seed. Meanwhile the
best network that it knows, among those that have met all images it wants, is looked up: its rank
among all networks that keep the target, by their scores on all images, which the replay knows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitresnas.doors import Parser, door, say
from vitresnas.files import JsonObject, read_json, write_json
from vitresnas.progress import Progress
from vitresnas.search import Constraint
from vitresnas.search.engine import Session
from vitresnas.search.evolution import Evolution
from vitresnas.search.guided import Guided
from vitresnas.search.racing import Racing
from vitresnas.search.random_search import RandomSearch
from vitresnas.search.replay import Replay
from vitresnas.search.strategy import Strategy

HERE = Path(__file__).resolve().parent
REPLAY = HERE / "replay" / "cifar-nano.npz"
RESULT = HERE / "results" / "replay" / "search_cost.json"
KIND = "search_cost"
SHARES = (0.75, 0.5, 0.25)  # of all networks keep the target
# The paper's sizes, 500 + 19 x (75 + 75), in a tenth: the space holds 3,456 networks in all.
PAPER = Evolution(initial=50, iterations=19, parents=8, mutants=8, crossovers=7)


@dataclass(frozen=True)
class Method:
    what: str
    strategy: Strategy
    racing: Racing | None = None
    images: int | None = None  # score on the first so many images and no others


METHODS = {
    "evolution": Method("the paper's evolution", PAPER),
    "random": Method("uniform draws, as many", RandomSearch(draws=PAPER.budget)),
    "guided+racing": Method("ours", Guided(), Guided().racing),
    "guided": Method("ours without racing", Guided()),
    "evolution+racing": Method("the paper's, racing", PAPER, Racing()),
    "random+racing": Method("uniform draws, racing", RandomSearch(draws=PAPER.budget), Racing()),
    "evolution-200": Method("the paper's on 200 images, always the same", PAPER, images=200),
}
OURS, YARDSTICK = "guided+racing", "evolution"
Curve = list[tuple[int, int]]  # image evaluations so far, true rank of the best known


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="bench/search_cost.py",
        description=__doc__.splitlines()[0],
        example="python bench/search_cost.py --out bench/results/replay/search_cost.json",
    )
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="draw what this file holds, and do nothing else")
    arguments = parser.parse_args(argv)
    if arguments.plot is not None:
        arguments.out = arguments.plot
        found = read_json(arguments.plot, KIND)
    else:
        found = measure(arguments.seeds, arguments.processes)
        write_json(arguments.out, KIND, found)
    picture = arguments.out.with_suffix(".png")
    draw(found, picture)
    for row in found["rows"]:
        say(tell(row))
    say(f"wrote {arguments.out} and {picture}")
    return 0


def measure(seeds: int, processes: int) -> JsonObject:
    """Every method under every target with every seed, as a JSON object."""
    targets = bounds()
    jobs = [(name, bound, seed) for bound in targets for name in METHODS for seed in range(seeds)]
    watch = Progress("searching", len(jobs), unit="searches")
    with ProcessPoolExecutor(processes) as pool, watch:
        curves: list[Curve] = []
        for curve in pool.map(run, *zip(*jobs, strict=True), chunksize=5):
            curves.append(curve)
            watch(len(curves))
    rows = []
    for target, share in zip(targets, SHARES, strict=True):
        by_method = {
            name: [c for (n, b, _), c in zip(jobs, curves, strict=True) if (n, b) == (name, target)]
            for name in METHODS
        }
        final = float(np.median([curve[-1][1] for curve in by_method[YARDSTICK]]))
        rows += [
            {"target_images_per_second": target, "kept_by_share": share, "method": name,
             "what": METHODS[name].what, **summary(found, final)}
            for name, found in by_method.items()
        ]  # fmt: skip
    replay = load()
    about = {"networks": len(replay), "images": replay.images, "prices": replay.priced_by}
    return {"seeds": seeds, "replay": about, "rows": rows}


def bounds() -> list[float]:
    """Throughput targets, in images per second by the table."""
    replay = load()
    assert replay.priced_by is not None
    speeds = replay.prices[replay.priced_by]
    return [round(float(np.quantile(speeds, 1 - share)), 1) for share in SHARES]


@lru_cache
def load() -> Replay:
    replay = Replay.load(REPLAY)
    return replay.with_prices(next(iter(replay.prices)))


@lru_cache
def ranks(bound: float) -> npt.NDArray[np.int64]:
    return load().ranks([Constraint("throughput", bound)])


def run(name: str, bound: float, seed: int) -> Curve:
    """One search, watched: after each batch, the best of what has met all its images."""
    replay, method, rank_of = load(), METHODS[name], ranks(bound)
    score: Any = replay if method.racing else replay.__call__
    if method.images is not None:
        score = replay.on_first(method.images)
    session = Session(
        replay.space,
        score,
        (Constraint("throughput", bound),),
        throughput=replay,
        strategy=method.strategy,
        seed=seed,
        racing=method.racing,
    )
    curve: Curve = []

    def look(_: int) -> None:
        candidates = session.evaluator.candidates
        spent = sum(candidate.score.images for candidate in candidates)
        met = max(candidate.score.images for candidate in candidates)
        finished = [candidate for candidate in candidates if candidate.score.images == met]
        best = min(finished, key=lambda candidate: candidate.rank)
        curve.append((spent, int(rank_of[replay.row(best.architecture)])))

    session.progress = look
    session.run()
    return curve


def summary(curves: Sequence[Curve], yardstick_rank: float) -> JsonObject:
    """Medians and quartiles over seeds; grid: image evaluations, equally spaced in their log."""
    grid = np.unique(np.geomspace(1000, 800_000, 120).astype(int))
    known = np.array([[rank_after(curve, images) for images in grid] for curve in curves])
    final = np.array([curve[-1][1] for curve in curves])
    spent = np.array([curve[-1][0] for curve in curves])
    # A median is told from where all seeds know a network.
    told = np.isfinite(known).all(axis=0)
    medians = np.median(known[:, told], axis=0)
    reached = np.flatnonzero(medians <= yardstick_rank)
    low, high = np.quantile(known[:, told], (0.25, 0.75), axis=0)
    return {
        "image_evaluations_median": float(np.median(spent)),
        "final_rank_median": float(np.median(final)),
        "final_rank_quartiles": [float(value) for value in np.quantile(final, (0.25, 0.75))],
        "final_rank_mean": float(final.mean()),
        "final_rank_mean_interval_95": interval_of_mean(final),
        "found_the_best_share": float((final == 1).mean()),
        "evolutions_rank_reached_at": int(grid[told][reached[0]]) if len(reached) else None,
        "curve": {
            "image_evaluations": grid[told].tolist(),
            "rank_median": medians.tolist(),
            "rank_lower_quartile": low.tolist(),
            "rank_upper_quartile": high.tolist(),
        },
    }


def rank_after(curve: Curve, images: int) -> float:
    """The rank known after so many image evaluations; infinite before the first."""
    known = [rank for spent, rank in curve if spent <= images]
    return float(known[-1]) if known else np.inf


def interval_of_mean(values: npt.NDArray[Any]) -> list[float]:
    """95 % percentile bootstrap over seeds."""
    drawn = np.random.default_rng(0).choice(values, (4000, len(values))).mean(axis=1)
    return [round(float(value), 3) for value in np.quantile(drawn, (0.025, 0.975))]


def tell(row: JsonObject) -> str:
    reached = row["evolutions_rank_reached_at"]
    return (
        f"{row['target_images_per_second']:,.0f} images/s, {row['method']:17}"
        f"{row['image_evaluations_median']:>9,.0f} image evaluations, final rank "
        f"{row['final_rank_median']:g} (mean {row['final_rank_mean']:.1f}); evolution's median "
        + (f"from {reached:,} on" if reached else "never reached")
    )


def draw(found: JsonObject, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    targets = sorted({row["target_images_per_second"] for row in found["rows"]})
    figure = Figure(figsize=(13, 5.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(targets), sharey=True)
    for axes, target in zip(panels, targets, strict=True):
        rows = [row for row in found["rows"] if row["target_images_per_second"] == target]
        for number, row in enumerate(rows):
            curve, colour = row["curve"], f"C{number}"
            x, dashed = curve["image_evaluations"], row["method"] not in (OURS, YARDSTICK, "random")
            axes.plot(
                x, curve["rank_median"], color=colour, lw=1.2 if dashed else 2.2,
                ls="--" if dashed else "-", label=f"{row['method']}: {row['what']}",
            )  # fmt: skip
            if not dashed:
                low, high = curve["rank_lower_quartile"], curve["rank_upper_quartile"]
                axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        axes.set(xscale="log", yscale="log", xlabel="image evaluations")
        share = rows[0]["kept_by_share"]
        axes.set_title(f"at least {target:,.0f} images/s ({share:.0%} of networks)", fontsize=10)
        axes.grid(True, which="major", color="#e6e6e6", lw=0.7)
    panels[0].set_ylabel("true rank of the best known (median, quartiles)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), fontsize=8, ncols=3, loc="outside lower center"
    )
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
