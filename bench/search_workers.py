"""Candidates per second of a search with 1, 2, ... processes, one thread each, after start-up.

    python bench/search_workers.py --processes 1 2

Every count is a `torchrun` of its own over the same networks of a space, scored by a super-network
with random weights (speed does not depend on them) on the data's hold-out; counts take turns, and
the rate is that of the scores after the first ones. Prints one JSON document or writes it (--out).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from vitresnas.doors import Rank
from vitresnas.files import write_json

_WARM_UP = 20  # candidates per process that are not counted


def measure(arguments: argparse.Namespace) -> int:
    """What each process of a torchrun does; rank 0 prints candidates per second."""
    import torch

    from vitresnas.data import load_data
    from vitresnas.search.score import SupernetScorer
    from vitresnas.search.serve import serve_search
    from vitresnas.search.settings import scores_depend_on
    from vitresnas.search.workers import joined
    from vitresnas.space import load_space
    from vitresnas.supernet.directory import load_supernet

    torch.set_num_threads(1)
    if not Rank.here().leads:
        return serve_search()
    space = load_space(arguments.space)
    data = load_data(arguments.data, image_size=space.image_size)
    space = space.with_data(classes=len(data.class_names))
    supernet = load_supernet(arguments.supernet, space=space, device="cpu")
    task = {"space": arguments.space, "data": arguments.data, "device": "cpu"}
    with joined() as workers:
        context = scores_depend_on(space, data, arguments.supernet)
        workers.prepare({**task, "supernet": str(arguments.supernet)}, context)
        score = workers.join(SupernetScorer(supernet, data.holdout), 1)
        hands, rng = 1 + len(workers), Random(0)
        networks = [space.sample(rng) for _ in range(arguments.candidates)]
        with ThreadPoolExecutor(hands) as pool:
            list(pool.map(score, networks[: _WARM_UP * hands]))
            begin = time.perf_counter()
            list(pool.map(score, networks))
            seconds = time.perf_counter() - begin
    print(len(networks) / seconds, flush=True)
    return 0


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure every count of processes, `--repeats` times in turn."""
    import torch

    from vitresnas.data import load_data
    from vitresnas.latency.environment import describe_environment
    from vitresnas.space import load_space
    from vitresnas.supernet import Supernet
    from vitresnas.supernet.directory import save_supernet

    space = load_space(arguments.space)
    data = load_data(arguments.data, image_size=space.image_size)
    torch.manual_seed(0)
    rates: dict[int, list[float]] = {count: [] for count in arguments.processes}
    with tempfile.TemporaryDirectory() as folder:
        supernet = Supernet(space.with_data(classes=len(data.class_names)))
        save_supernet(supernet, Path(folder) / "supernet", {"recipe": "none"})
        for _ in range(arguments.repeats):
            for count in arguments.processes:
                rates[count].append(_one_torchrun(arguments, count, Path(folder) / "supernet"))
    medians = {count: statistics.median(found) for count, found in rates.items()}
    first = medians[arguments.processes[0]]
    return {
        "space": arguments.space,
        "holdout_images": len(data.holdout),
        "rows": [
            {
                "processes": count,
                "candidates_per_second": rates[count],
                "median": medians[count],
                "times_the_first": medians[count] / first,
            }
            for count in arguments.processes
        ],
        "environment": describe_environment(),
    }


def _one_torchrun(arguments: argparse.Namespace, count: int, supernet: Path) -> float:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={count}", __file__, "--supernet", str(supernet)]
    command += ["--space", arguments.space, "--candidates", str(arguments.candidates)]
    command += ["--data", arguments.data] if arguments.data else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(found.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--space", default="digits")
    parser.add_argument("--data")
    parser.add_argument("--candidates", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a file for the JSON document")
    parser.add_argument("--supernet", type=Path, help=argparse.SUPPRESS)  # of each process
    arguments = parser.parse_args()
    if arguments.supernet:
        return measure(arguments)
    found = run(arguments)
    if arguments.out:
        write_json(arguments.out, "search_workers", found)
    else:
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
