"""Strategies at equal budgets, on the replay: ranks under one target, and whole fronts.

    python bench/search_fronts.py --out bench/results/replay/search_fronts.json

Ranks: evolution, NSGA-II and random search score equally many networks under one throughput target;
what counts is the true rank of the best found. Fronts: NSGA-II in one search without a target,
against evolution asked for several targets in turn with an equal share of the budget each, and
against random draws. A front's hypervolume is the area, in likelihood times throughput, that it
covers of what the true front covers; the corner is the space's worst likelihood and least speed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from search_cost import HERE, PAPER, SHARES, bounds, interval_of_mean, load, ranks

from vitresnas.doors import Parser, door, say
from vitresnas.files import JsonObject, write_json
from vitresnas.progress import Progress
from vitresnas.search import Constraint
from vitresnas.search.engine import Session
from vitresnas.search.evolution import Evolution
from vitresnas.search.nsga2 import Nsga2
from vitresnas.search.random_search import RandomSearch
from vitresnas.search.strategy import Strategy

RESULT = HERE / "results" / "replay" / "search_fronts.json"
KIND = "search_fronts"
BUDGET = 336
TARGETS = 6  # of the evolution that is asked several times
STRATEGIES: dict[str, Strategy] = {
    "evolution": PAPER,
    "nsga2": Nsga2(population=28, generations=11),
    "random": RandomSearch(draws=BUDGET),
}
ASKED_OFTEN = Evolution(initial=20, iterations=3, parents=6, mutants=6, crossovers=6)  # 56
FRONTS = ("nsga2", "evolution at six targets", "random")
YARDSTICK = "random"


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="bench/search_fronts.py",
        description=__doc__.splitlines()[0],
        example="python bench/search_fronts.py",
    )
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args(argv)
    found = measure(arguments.seeds, arguments.processes)
    write_json(arguments.out, KIND, found)
    for row in found["rows"]:
        say(tell(row))
    say(f"wrote {arguments.out}")
    return 0


def measure(seeds: int, processes: int) -> JsonObject:
    """Every strategy with every seed, as a JSON object."""
    cases: list[tuple[str, str, float]] = [
        ("rank", name, bound) for bound in bounds() for name in STRATEGIES
    ] + [("hypervolume", name, 0.0) for name in FRONTS]
    jobs = [(*case, seed) for case in cases for seed in range(seeds)]
    watch = Progress("searching", len(jobs), unit="searches")
    with ProcessPoolExecutor(processes) as pool, watch:
        results = []
        for result in pool.map(run, *zip(*jobs, strict=True), chunksize=5):
            results.append(result)
            watch(len(results))
    table = np.array(results).reshape(len(cases), seeds, 2)
    shares = dict(zip(bounds(), SHARES, strict=True))
    rows = []
    for (measure_, name, bound), values in zip(cases, table, strict=True):
        against = table[cases.index((measure_, YARDSTICK, bound))]
        better = 1.0 if measure_ == "hypervolume" else -1.0
        rows.append(
            {
                "measure": measure_,
                "strategy": name,
                "target_images_per_second": bound or None,
                "kept_by_share": shares.get(bound),
                "networks_scored": float(values[:, 1].mean()),
                "median": float(np.median(values[:, 0])),
                **mean_with_interval("mean", values[:, 0]),
                **mean_with_interval(
                    "better_than_random_by", better * (values[:, 0] - against[:, 0])
                ),
            }
        )
    replay = load()
    about = {"networks": len(replay), "images": replay.images, "prices": replay.priced_by}
    return {"seeds": seeds, "budget": BUDGET, "replay": about, "rows": rows}


def mean_with_interval(name: str, values: npt.NDArray[np.float64]) -> JsonObject:
    return {name: float(values.mean()), f"{name}_interval_95": interval_of_mean(values)}


def run(measure_: str, name: str, bound: float, seed: int) -> tuple[float, float]:
    """What a strategy reaches with a seed, and how many networks it scored."""
    if measure_ == "rank":
        rows = scored(STRATEGIES[name], seed, bound)
        return float(ranks(bound)[rows].min()), len(rows)
    if name in STRATEGIES:
        rows = scored(STRATEGIES[name], seed)
    else:
        rows = [row for target in targets() for row in scored(ASKED_OFTEN, seed, target)]
    return hypervolume(rows) / whole(), len(rows)


def scored(strategy: Strategy, seed: int, bound: float | None = None) -> list[int]:
    """The rows of the networks that a search scores."""
    replay = load()
    constraints = (Constraint("throughput", bound),) if bound else ()
    session = Session(
        replay.space, replay.__call__, constraints, throughput=replay, strategy=strategy, seed=seed
    )
    return [replay.row(candidate.architecture) for candidate in session.run().history]


@lru_cache
def targets() -> tuple[float, ...]:
    """Throughputs from the slowest network's up to what a fortieth of all keep, evenly in log."""
    speeds = points()[:, 1]
    found = np.geomspace(speeds.min(), np.quantile(speeds, 0.975), TARGETS)
    return tuple(float(value) * (1 - 1e-9) for value in found)


@lru_cache
def points() -> npt.NDArray[np.float64]:
    """(likelihood, images per second) of every network of the space; more is better in both."""
    replay = load()
    assert replay.priced_by is not None
    likelihood = replay.log_likelihoods.mean(axis=1, dtype=np.float64)
    return np.stack([likelihood, replay.prices[replay.priced_by]], axis=1)


@lru_cache
def whole() -> float:
    return hypervolume(range(len(load())))


def hypervolume(rows: Iterable[int]) -> float:
    """The area that these networks dominate, from the worst corner of the space."""
    corner = points().min(axis=0)
    area, reached = 0.0, corner[1]
    # From the most likely on: each adds a strip where it is faster than all before it.
    for likelihood, speed in sorted(points()[list(rows)].tolist(), reverse=True):
        if speed > reached:
            area += (likelihood - corner[0]) * (speed - reached)
            reached = speed
    return float(area)


def tell(row: JsonObject) -> str:
    low, high = row["mean_interval_95"]
    gain, (least, most) = row["better_than_random_by"], row["better_than_random_by_interval_95"]
    where = row["target_images_per_second"]
    shown: Callable[[float], str] = "{:.2f}".format if where else "{:.4f}".format
    return (
        f"{f'rank at {where:,.0f} images/s' if where else 'hypervolume':24} {row['strategy']:25} "
        f"mean {shown(row['mean'])} ({shown(low)} to {shown(high)}), better than random by "
        f"{shown(gain)} ({shown(least)} to {shown(most)}), {row['networks_scored']:.0f} networks"
    )


if __name__ == "__main__":
    sys.exit(main())
