"""What a super-network training step costs: the largest net, the paper's masks, and slices.

    python bench/supernet_step.py --space tiny --batch-size 32 --groups 4 --device cpu --out FILE

Rows: `dense` (the largest network as a plain model, no masks), `masked` (the paper's way: full
width times masks, with SDPA), `sliced` (each group only its part). All paths run the same
committed draws, interleaved, so that a busy machine disturbs them alike. A step is forward, loss
and backward. Before anything is timed, the paths' losses and gradients are compared.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError, VitresnasError
from vitresnas.files import write_json
from vitresnas.latency.environment import describe_environment
from vitresnas.latency.request import resolve_device
from vitresnas.models import create_model
from vitresnas.space import Architecture, SearchSpace, load_space, macs
from vitresnas.supernet import Supernet, draw_architectures

DRAWS, DRAW_SEED, WARM_UP = 16, 2021, 1
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PATHS = ("dense", "masked", "sliced")
Draw = tuple[Architecture, ...]


@door
def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    torch.manual_seed(0)
    space = load_space(options.space)
    draws = committed_draws(space, options.groups)
    steps = build_steps(space, options)
    worst = check_paths_agree(space, options)
    say(f"masked and sliced agree: largest relative gradient error {worst:.1e} (fp32, one draw)")
    samples = time_steps(steps, draws, options.rounds, options.device)
    peaks = {path: peak_bytes(step, draws, options.device) for path, step in steps.items()}

    rows = [row(path, samples[path], peaks[path], space, draws, options) for path in steps]
    payload = {
        "environment": describe_environment(),
        "rows": rows,
        "draw_seed": DRAW_SEED,
        "draws": [[architecture.id for architecture in draw] for draw in draws],
        "rounds": options.rounds,
        "space": space.name,
        "summary": summary(rows),
    }
    print_rows(rows, payload["summary"])
    if options.out:
        write_json(options.out, "bench", payload)
        say(f"wrote {options.out}")
    if options.json:
        print_json(payload)
    return 0


def parse(argv: Sequence[str] | None) -> Any:
    parser = Parser(
        prog="python bench/supernet_step.py",
        description="Time one super-network training step, path by path.",
        example="python bench/supernet_step.py --space digits --batch-size 64 --groups 4",
    )
    parser.add_argument("--space", default="tiny", help="a preset or a space file")
    parser.add_argument("--batch-size", type=int, default=32, help="images per step")
    parser.add_argument("--groups", type=int, default=4, help="sub-networks per step")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="fp32", choices=DTYPES, help="bf16, fp16: by autocast")
    parser.add_argument("--rounds", type=int, default=5, help="passes over all 16 draws")
    parser.add_argument("--paths", nargs="+", default=PATHS, choices=PATHS)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(argv)
    if options.batch_size < 1 or options.groups < 1 or options.batch_size % options.groups:
        raise InputError(
            f"batch size {options.batch_size} cannot be divided into {options.groups} equal "
            "groups: choose a multiple"
        )
    if options.rounds < 1:
        raise InputError(f"rounds is {options.rounds}: use at least 1")
    options.device = resolve_device(options.device)
    return options


def committed_draws(space: SearchSpace, groups: int) -> list[Draw]:
    """The same sub-networks for every path, machine and run."""
    rng = Random(DRAW_SEED)
    return [draw_architectures(space, groups, rng) for _ in range(DRAWS)]


def active_share(space: SearchSpace, draws: Sequence[Draw]) -> float:
    """Mean MACs of the drawn networks over the largest network's."""
    drawn = [macs(architecture) for draw in draws for architecture in draw]
    return statistics.mean(drawn) / macs(space.largest)


def build_steps(space: SearchSpace, options: Any) -> dict[str, Callable[[Draw], None]]:
    images, targets = make_batch(space, options.batch_size, options.device)
    autocast = torch.autocast(
        torch.device(options.device).type,
        dtype=DTYPES[options.dtype],
        enabled=options.dtype != "fp32",
    )

    def step_of(path: str) -> Callable[[Draw], None]:
        model = build_model(space, path).to(options.device)
        parameters = list(model.parameters())

        def step(draw: Draw) -> None:
            with autocast:
                logits = model(images) if path == "dense" else model(images, draw)
                loss = F.cross_entropy(logits.float(), targets)
            torch.autograd.grad(loss, parameters)

        return step

    return {path: step_of(path) for path in options.paths}


def build_model(space: SearchSpace, path: str) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(space.largest) if path == "dense" else Supernet(space, path=path)
    return model.train()


def make_batch(space: SearchSpace, batch_size: int, device: str) -> tuple[Tensor, Tensor]:
    side = space.image_size
    images = torch.randn(batch_size, space.channels, side, side, device=device)
    return images, torch.randint(space.classes, (batch_size,), device=device)


def check_paths_agree(space: SearchSpace, options: Any) -> float:
    """Largest relative error between masked and sliced gradients on one draw, in fp32."""
    images, targets = make_batch(space, options.groups, options.device)
    draw = committed_draws(space, options.groups)[0]
    results = []
    for path in ("masked", "sliced"):
        model = build_model(space, path).to(options.device)
        loss = F.cross_entropy(model(images, draw), targets)
        results.append(torch.autograd.grad(loss, list(model.parameters())))
    worst = max(
        float((a - b).norm() / a.norm().clamp_min(1e-6)) for a, b in zip(*results, strict=True)
    )
    if not worst < 1e-2:
        raise VitresnasError(f"masked and sliced gradients differ by {worst:.1e}: nothing timed")
    return worst


def time_steps(
    steps: dict[str, Callable[[Draw], None]], draws: Sequence[Draw], rounds: int, device: str
) -> dict[str, list[list[float]]]:
    """Milliseconds by path, draw and round; paths take turns on every draw."""
    for step in steps.values():
        for draw in draws[:WARM_UP]:
            step(draw)
    samples: dict[str, list[list[float]]] = {path: [[] for _ in draws] for path in steps}
    began, total = time.monotonic(), rounds * len(draws)
    for done in range(total):
        index = done % len(draws)
        for path, step in steps.items():
            samples[path][index].append(time_one(step, draws[index], device))
        if (done + 1) % len(draws) == 0:
            left = (time.monotonic() - began) / (done + 1) * (total - done - 1)
            say(f"round {(done + 1) // len(draws)} of {rounds}, {left:.0f} s left")
    return samples


def time_one(step: Callable[[Draw], None], draw: Draw, device: str) -> float:
    wait_for(device)
    start = time.perf_counter()
    step(draw)
    wait_for(device)
    return (time.perf_counter() - start) * 1e3


def wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def peak_bytes(step: Callable[[Draw], None], draws: Sequence[Draw], device: str) -> int | None:
    """The most that a step allocates on top of what lies there before it; None on a CPU."""
    if device == "cpu":
        return None
    resident = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for draw in draws:
        step(draw)
    return torch.cuda.max_memory_allocated(device) - resident


def row(
    path: str,
    samples: Sequence[Sequence[float]],
    peak: int | None,
    space: SearchSpace,
    draws: Sequence[Draw],
    options: Any,
) -> dict[str, Any]:
    """One bench row. The minimum is the mean over the draws of each draw's fastest round."""
    return {
        "path": path,
        "dtype": options.dtype,
        "batch_size": options.batch_size,
        "groups": options.groups,
        "active_share": 1.0 if path == "dense" else active_share(space, draws),
        "milliseconds_median": statistics.median(s for draw in samples for s in draw),
        "milliseconds_min": statistics.mean(min(draw) for draw in samples),
        "milliseconds_samples": [[round(s, 3) for s in draw] for draw in samples],
        "peak_bytes": peak,
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Ratios of the minima: masked to dense, sliced to its share of dense."""
    fastest = {row["path"]: row["milliseconds_min"] for row in rows}
    share = min(row["active_share"] for row in rows)
    ratios = {"active_share": share}
    if {"dense", "masked"} <= set(fastest):
        ratios["masked_over_dense"] = fastest["masked"] / fastest["dense"]
    if {"dense", "sliced"} <= set(fastest):
        ratios["sliced_over_active_dense"] = fastest["sliced"] / (share * fastest["dense"])
    return ratios


def print_rows(rows: Sequence[dict[str, Any]], ratios: dict[str, float]) -> None:
    say(f"{'path':8} {'median ms':>10} {'min ms':>10} {'images/s':>10}")
    for entry in rows:
        fastest = entry["milliseconds_min"]
        rate = entry["batch_size"] / fastest * 1e3
        say(f"{entry['path']:8} {entry['milliseconds_median']:10.1f} {fastest:10.1f} {rate:10.1f}")
    for name, value in ratios.items():
        say(f"{name}: {value:.3f}")


if __name__ == "__main__":
    sys.exit(main())
