"""What a super-network training step costs, path by path.

    python bench/supernet_step.py --space tiny --batch-size 32 --groups 4 --device cpu --out FILE

dense            the largest network as a plain model, no masks
masked           full width times masks, eager: the paper's way, here with SDPA
masked-math      the same without SDPA: softmax of a product, as the paper's own code computes it
masked-compiled  `masked` under torch.compile: the strong baseline
sliced           each group only its part, plain torch on slices
fused            variable-width kernels on full-width storage
fused-graph      `fused` as one CUDA graph (GPU only)

All paths run the same committed draws, interleaved, so that a busy machine disturbs them alike. A
step is forward, loss and backward. Before anything is timed, the gradients of all paths are
compared.
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
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError, VitresnasError
from vitresnas.files import write_json
from vitresnas.latency.environment import describe_environment
from vitresnas.latency.request import resolve_device
from vitresnas.models import create_model
from vitresnas.space import Architecture, SearchSpace, load_space, macs
from vitresnas.supernet import Supernet, draw_architectures
from vitresnas.supernet.architecture_table import encode

DRAWS, DRAW_SEED, WARM_UP = 16, 2021, 1
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PATHS = ("dense", "masked", "masked-math", "masked-compiled", "sliced", "fused", "fused-graph")
CPU_PATHS = ("dense", "masked", "sliced", "fused")  # by default: compiling takes minutes there
PROFILED = 25  # operators kept of a profile
Draw = tuple[Architecture, ...]


@door
def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    if options.device != "cpu":
        torch.cuda.set_device(options.device)  # streams and graphs are of the current device
    torch.manual_seed(0)
    space = load_space(options.space)
    draws = committed_draws(space, options.groups)
    worst = check_paths_agree(space, options)
    say(f"the paths agree: largest relative gradient error {worst:.1e} (fp32, one draw)")
    steps = build_steps(space, options)
    samples = time_steps(steps, draws, options.rounds, options.device)
    # A graph owns its memory: replaying it allocates nothing.
    peaks = {
        path: None if path == "fused-graph" else peak_bytes(step, draws, options.device)
        for path, step in steps.items()
    }
    launches = {
        path: count_launches(step, draws[0], options.device) for path, step in steps.items()
    }

    rows = [
        row(path, samples[path], peaks[path], launches[path], space, draws, options)
        for path in steps
    ]
    payload = {
        "environment": describe_environment(),
        "rows": rows,
        "draw_seed": DRAW_SEED,
        "draws": [[architecture.id for architecture in draw] for draw in draws],
        "rounds": options.rounds,
        "space": space.name,
        "summary": summary(rows),
    }
    if options.profile:
        payload["profile"] = {path: profile(steps[path], draws) for path in options.profile}
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
    parser.add_argument(
        "--paths", nargs="+", choices=PATHS, help="on a GPU all, else " + " ".join(CPU_PATHS)
    )
    parser.add_argument(
        "--profile",
        nargs="+",
        choices=PATHS,
        metavar="PATH",
        default=[],
        help="add where the time of these paths goes, operator by operator",
    )
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
    on_gpu = options.device != "cpu"
    if options.paths is None:
        options.paths = list(PATHS if on_gpu else CPU_PATHS)
    if "fused-graph" in options.paths and not on_gpu:
        raise InputError("path fused-graph replays a CUDA graph: use --device cuda")
    if missing := set(options.profile) - set(options.paths):
        raise InputError(f"--profile names {', '.join(sorted(missing))}: add it to --paths")
    return options


def committed_draws(space: SearchSpace, groups: int) -> list[Draw]:
    """The same sub-networks for every path, machine and run."""
    rng = Random(DRAW_SEED)
    return [draw_architectures(space, groups, rng) for _ in range(DRAWS)]


def active_share(space: SearchSpace, draws: Sequence[Draw]) -> float:
    """Mean MACs of the drawn networks over the largest network's."""
    drawn = [macs(architecture) for draw in draws for architecture in draw]
    return statistics.mean(drawn) / macs(space.largest)


def build_steps(space: SearchSpace, options: Any) -> dict[str, Callable[[Draw], Any]]:
    """By path: a step on one draw, which returns all gradients."""
    images, targets = make_batch(space, options.batch_size, options.device)
    dtype = DTYPES[options.dtype]
    return {path: step_of(path, space, images, targets, dtype) for path in options.paths}


def step_of(
    path: str, space: SearchSpace, images: Tensor, targets: Tensor, dtype: torch.dtype
) -> Callable[[Draw], Any]:
    model = build_model(space, path).to(images.device)
    parameters = list(model.parameters())
    kind = images.device.type

    def gradients(forward: Callable[[], Tensor]) -> Sequence[Tensor]:
        with torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32):
            logits = forward()
        return torch.autograd.grad(F.cross_entropy(logits.float(), targets), parameters)

    if path == "dense":
        return lambda draw: gradients(lambda: model(images))
    assert isinstance(model, Supernet)
    if path == "masked-compiled":
        # Else the small batch of the check makes torch.compile take the batch for one that varies.
        by_table = torch.compile(model.forward_table, dynamic=False)

        def compiled(draw: Draw) -> Sequence[Tensor]:
            table_LFG = encode(draw).to(images.device)
            return gradients(lambda: by_table(images, table_LFG)["class"])

        return compiled
    if path == "masked-math":

        def explicit(draw: Draw) -> Sequence[Tensor]:
            with sdpa_kernel(SDPBackend.MATH):
                return gradients(lambda: model(images, draw))

        return explicit
    if path == "fused-graph":
        return capture(model, images, gradients)
    return lambda draw: gradients(lambda: model(images, draw))


def capture(
    model: Supernet, images: Tensor, gradients: Callable[[Callable[[], Tensor]], Sequence[Tensor]]
) -> Callable[[Draw], Any]:
    """Forward, loss and backward in one CUDA graph, recorded on the first draw."""
    recorded: list[Any] = []

    def step(draw: Draw) -> Any:
        if not recorded:
            table_LFG = encode(draw).to(images.device)

            def once() -> Sequence[Tensor]:
                return gradients(lambda: model.forward_table(images, table_LFG)["class"])

            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    once()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = once()
            recorded.extend((graph, table_LFG, outputs))
        graph, table_LFG, outputs = recorded
        table_LFG.copy_(encode(draw), non_blocking=True)
        graph.replay()
        return outputs

    return step


def build_model(space: SearchSpace, path: str) -> nn.Module:
    torch.manual_seed(0)
    if path == "dense":
        return create_model(space.largest).train()
    return Supernet(space, path=path.split("-")[0]).train()


def make_batch(space: SearchSpace, batch_size: int, device: str) -> tuple[Tensor, Tensor]:
    side = space.image_size
    images = torch.randn(batch_size, space.channels, side, side, device=device)
    return images, torch.randint(space.classes, (batch_size,), device=device)


def check_paths_agree(space: SearchSpace, options: Any) -> float:
    """Largest relative error of a path's gradients against the masked path's: one draw, fp32."""
    images, targets = make_batch(space, options.groups, options.device)
    draw = committed_draws(space, options.groups)[0]
    truth = step_of("masked", space, images, targets, torch.float32)(draw)
    worst = 0.0
    for path in options.paths:
        if path in ("dense", "masked"):
            continue
        found = step_of(path, space, images, targets, torch.float32)(draw)
        error = max(
            float((a - b).norm() / b.norm().clamp_min(1e-6))
            for a, b in zip(found, truth, strict=True)
        )
        if not error < 1e-2:
            raise VitresnasError(
                f"gradients of {path} and masked differ by {error:.1e} of the norm: nothing timed"
            )
        worst = max(worst, error)
    return worst


def time_steps(
    steps: dict[str, Callable[[Draw], Any]], draws: Sequence[Draw], rounds: int, device: str
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


def time_one(step: Callable[[Draw], Any], draw: Draw, device: str) -> float:
    wait_for(device)
    start = time.perf_counter()
    step(draw)
    wait_for(device)
    return (time.perf_counter() - start) * 1e3


def wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def peak_bytes(step: Callable[[Draw], Any], draws: Sequence[Draw], device: str) -> int | None:
    """The most that a step allocates on top of what lies there before it; None on a CPU."""
    if device == "cpu":
        return None
    resident = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for draw in draws:
        step(draw)
    return torch.cuda.max_memory_allocated(device) - resident


def count_launches(step: Callable[[Draw], Any], draw: Draw, device: str) -> int | None:
    """Launches (of kernels, copies or graphs) from the host in one step; None on a CPU."""
    if device == "cpu":
        return None
    from torch.profiler import ProfilerActivity

    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        step(draw)
        torch.cuda.synchronize(device)
    names = ("Launch", "Memcpy", "Memset")
    return sum(
        event.count
        for event in found.key_averages()
        if event.key.startswith("cu") and any(name in event.key for name in names)
    )


def profile(step: Callable[[Draw], Any], draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """The operators that take longest, over one step on each draw: own time and share."""
    with torch.profiler.profile() as found:
        for draw in draws:
            step(draw)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        {
            "operator": event.key,
            "calls": event.count,
            "milliseconds_per_step": round(event.self_cpu_time_total / 1e3 / len(draws), 3),
            "share": round(event.self_cpu_time_total / total, 4),
        }
        for event in events[:PROFILED]
    ]


def row(
    path: str,
    samples: Sequence[Sequence[float]],
    peak: int | None,
    launches: int | None,
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
        "launches": launches,
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Ratios of the minima: paths to dense and to their share of it, fused to its rivals."""
    fastest = {row["path"]: row["milliseconds_min"] for row in rows}
    share = min(row["active_share"] for row in rows)
    ratios = {"active_share": share}
    if "dense" in fastest:
        for path in [path for path in fastest if path.startswith("masked")]:
            ratios[f"{path}_over_dense"] = fastest[path] / fastest["dense"]
        for path in [path for path in ("sliced", "fused", "fused-graph") if path in fastest]:
            ratios[f"{path}_over_active_dense"] = fastest[path] / (share * fastest["dense"])
    for ours in [path for path in ("fused", "fused-graph") if path in fastest]:
        for path in [path for path in fastest if path not in ("dense", "fused", "fused-graph")]:
            ratios[f"{path}_over_{ours}"] = fastest[path] / fastest[ours]
    return ratios


def print_rows(rows: Sequence[dict[str, Any]], ratios: dict[str, float]) -> None:
    say(f"{'path':15} {'median ms':>10} {'min ms':>10} {'images/s':>10}")
    for entry in rows:
        fastest = entry["milliseconds_min"]
        rate = entry["batch_size"] / fastest * 1e3
        say(f"{entry['path']:15} {entry['milliseconds_median']:10.1f} {fastest:10.1f} {rate:10.1f}")
    for name, value in ratios.items():
        say(f"{name}: {value:.3f}")


if __name__ == "__main__":
    sys.exit(main())
