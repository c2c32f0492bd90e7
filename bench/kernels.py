"""Time every op's kernels against the best plain way to do the same, after checking them.

    python bench/kernels.py --out bench/results/cpu-xeon-2core/kernels.json

Per row: agreement with float64 first (a kernel that disagrees is not timed), then the contenders in
turns, each on inputs that left the cache; medians, the floor by measured copy bandwidth, and the
speedup against the *best* baseline. On a GPU calls are timed inside one CUDA graph.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import write_json
from vitresnas.latency.environment import describe_environment
from vitresnas.ops import dispatch
from vitresnas.ops import masked_layer_norm as mln

EPS = 1e-6
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}  # relative norm, as in tests/ops
CACHE_BYTES = 192 << 20  # inputs in rotation: three times an H100's second-level cache
Call = Callable[[], Any]


@dataclass
class Work:
    """One thing to time: the kernel, its rivals, and what it cannot do without."""

    op: str
    direction: str
    shape: tuple[int, ...]
    dtype: str
    active_share: float
    bytes: int  # read and written at least
    sets: list[dict[str, Tensor]]  # inputs in rotation
    ours: Callable[[dict[str, Tensor]], Sequence[Tensor]]
    baselines: dict[str, Callable[[dict[str, Tensor]], Any]]
    truth: Callable[[dict[str, Tensor]], Sequence[Tensor]]  # in float64


def masked_layer_norm(batch: int, device: torch.device) -> Iterator[Work]:
    """The three stages of the smallest ViT-ResNAS at full and at mean active width, two groups."""
    groups = 2
    for tokens, channels in ((257, 256), (65, 512), (17, 1024)):
        for width in (channels, channels * 25 // 32):  # 0.78 is the mean over the search space
            for dtype in DTYPES:
                kind = DTYPES[dtype]

                def draw(
                    shape: tuple[int, ...] = (batch, tokens, channels),
                    width: int = width,
                    kind: torch.dtype = kind,
                ) -> dict[str, Tensor]:
                    channels = shape[-1]
                    x, dy = (torch.randn(shape, device=device).to(kind) for _ in range(2))
                    weight, bias = (torch.randn(channels, device=device) for _ in range(2))
                    widths = torch.full((groups,), width, dtype=torch.int32, device=device)
                    _, mean, rstd = mln._forward_reference(x, weight, bias, widths, EPS)
                    found = dict(x=x, dy=dy, weight=weight, bias=bias, widths=widths)
                    return {**found, "mean": mean, "rstd": rstd}

                element = kind.itemsize * batch * tokens
                size = element * channels
                sets = [draw() for _ in range(max(3, CACHE_BYTES // (3 * size)))]
                common = (mln.OP.name, (batch, tokens, channels), dtype, width / channels, sets)
                yield layer_norm_forward(*common, bytes=element * (width + channels))
                yield layer_norm_backward(*common, bytes=element * (2 * width + channels))


def layer_norm_forward(
    op: str, shape: tuple[int, ...], dtype: str, share: float, sets: Any, bytes: int
) -> Work:
    width = int(sets[0]["widths"][0])

    def ours(s: dict[str, Tensor]) -> Sequence[Tensor]:
        arguments = (s["x"], s["weight"], s["bias"], s["widths"], EPS)
        return [torch.ops.vitresnas.masked_layer_norm(*arguments)[0]]

    def full(s: dict[str, Tensor]) -> Tensor:
        kind = s["x"].dtype
        return F.layer_norm(s["x"], shape[-1:], s["weight"].to(kind), s["bias"].to(kind), EPS)

    def sliced(s: dict[str, Tensor]) -> Tensor:
        y, kind = torch.zeros_like(s["x"]), s["x"].dtype
        weight, bias = s["weight"][:width].to(kind), s["bias"][:width].to(kind)
        for x, part in zip(s["x"].chunk(len(s["widths"])), y.chunk(len(s["widths"])), strict=True):
            part[..., :width] = F.layer_norm(x[..., :width], (width,), weight, bias, EPS)
        return y

    def masked(s: dict[str, Tensor]) -> Tensor:
        return mln.reference(s["x"], s["weight"], s["bias"], s["widths"], EPS)

    def truth(s: dict[str, Tensor]) -> Sequence[Tensor]:
        return [sliced({k: v if k == "widths" else v.double() for k, v in s.items()})]

    baselines = {"F.layer_norm, full width": full, "F.layer_norm, sliced loop": sliced}
    return Work(op, "forward", shape, dtype, share, bytes, sets, ours,
                {**baselines, "reference": masked}, truth)  # fmt: skip


def layer_norm_backward(
    op: str, shape: tuple[int, ...], dtype: str, share: float, sets: Any, bytes: int
) -> Work:
    width = int(sets[0]["widths"][0])
    native = torch.ops.aten.native_layer_norm_backward
    every = (True, True, True)

    def arguments(s: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return s["dy"], s["x"], s["mean"], s["rstd"], s["weight"], s["widths"]

    def ours(s: dict[str, Tensor]) -> Sequence[Tensor]:
        gradients: Sequence[Tensor] = torch.ops.vitresnas.masked_layer_norm_backward(*arguments(s))
        return gradients

    def statistics(s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        # Torch's own backward wants them in x's type on the CPU.
        kind = s["x"].dtype if s["x"].is_cpu else s["mean"].dtype
        return s["mean"][..., None].to(kind), s["rstd"][..., None].to(kind)

    def full(s: dict[str, Tensor]) -> Any:
        weight = s["weight"].to(s["x"].dtype)
        return native(s["dy"], s["x"], shape[-1:], *statistics(s), weight, weight, every)

    def sliced(s: dict[str, Tensor]) -> Sequence[Tensor]:
        groups, weight = len(s["widths"]), s["weight"][:width].to(s["x"].dtype)
        dx = torch.zeros_like(s["x"])
        dweight, dbias = torch.zeros_like(s["weight"]), torch.zeros_like(s["weight"])
        tensors = (s["dy"][..., :width], s["x"][..., :width], *statistics(s), dx[..., :width])
        for dy, x, mean, rstd, to in zip(*(t.chunk(groups) for t in tensors), strict=True):
            part, *sums = native(dy, x, (width,), mean, rstd, weight, weight, every)
            to.copy_(part)
            dweight[:width] += sums[0]
            dbias[:width] += sums[1]
        return dx, dweight, dbias

    def masked(s: dict[str, Tensor]) -> Any:
        return mln._backward_reference(*arguments(s))

    def truth(s: dict[str, Tensor]) -> Sequence[Tensor]:
        s = {k: v if k == "widths" else v.double() for k, v in s.items()}
        x, weight, bias = (s[name].requires_grad_() for name in ("x", "weight", "bias"))
        y = mln.reference(x, weight, bias, s["widths"], EPS)
        return torch.autograd.grad(y, (x, weight, bias), s["dy"])

    baselines = {"F.layer_norm, full width": full, "F.layer_norm, sliced loop": sliced}
    return Work(op, "backward", shape, dtype, share, bytes, sets, ours,
                {**baselines, "reference": masked}, truth)  # fmt: skip


BENCHES = {"masked_layer_norm": masked_layer_norm}


def rows(work: Work, backend: str, rounds: int) -> dict[str, Any]:
    """Check, then time; the row of one work on one backend."""
    row: dict[str, Any] = {
        "op": work.op,
        "direction": work.direction,
        "shape": list(work.shape),
        "active_share": round(work.active_share, 4),
        "dtype": work.dtype,
        "backend": backend,
    }
    with dispatch.use_backend(backend):
        row["max_error"] = disagreement(work.ours(work.sets[0]), work.truth(work.sets[0]))
        if not row["max_error"] < TOLERANCE[work.dtype]:
            return {**row, "passed": False}
        rivals = {"ours": work.ours, **work.baselines, "copy": lambda s: s["x"].clone()}
        timer = time_in_graph if work.sets[0]["x"].is_cuda else time_in_turns
        calls: dict[str, list[Callable[[], Any]]]
        calls = {name: [partial(f, s) for s in work.sets] for name, f in rivals.items()}
        samples = timer(calls, rounds)
    medians = {name: statistics.median(found) for name, found in samples.items()}
    best = min(work.baselines, key=medians.__getitem__)
    x = work.sets[0]["x"]
    bandwidth = 2 * x.numel() * x.element_size() / medians["copy"]
    fifths = statistics.quantiles(samples["ours"], n=5)
    floor = work.bytes / bandwidth
    return {
        **row,
        "milliseconds_median": medians["ours"],
        "milliseconds_20": fifths[0],
        "milliseconds_80": fifths[3],
        "milliseconds_min": min(samples["ours"]),
        "floor_milliseconds": floor,
        "floor_share": floor / medians["ours"],
        "baseline_milliseconds": {name: medians[name] for name in work.baselines},
        "best_baseline": best,
        "speedup": medians[best] / medians["ours"],
        "passed": medians["ours"] <= medians["reference"],
    }


def disagreement(ours: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """The largest relative norm of an output's error."""
    return max(
        float(torch.linalg.vector_norm(a.double() - b) / torch.linalg.vector_norm(b))
        for a, b in zip(ours, truth, strict=True)
    )


def time_in_turns(rivals: dict[str, list[Call]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per call: every contender once per round, so that a busy spell hits them all."""
    samples: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 2):
        for name, calls in rivals.items():
            call = calls[turn % len(calls)]
            start = time.perf_counter()
            call()
            if turn >= 2:  # the first two warm up threads and allocator
                samples[name].append(1e3 * (time.perf_counter() - start))
    return samples


def time_in_graph(rivals: dict[str, list[Call]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per call on the GPU: all input sets in one CUDA graph, free of launch costs."""
    graphs = {}
    for name, calls in rivals.items():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for call in calls[:3]:
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graphs[name] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[name]):
            for call in calls:
                call()
    samples: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 5):
        for name, graph in graphs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            if turn >= 5:
                samples[name].append(start.elapsed_time(end) / len(rivals[name]))
    return samples


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="bench/kernels.py",
        description="Check every kernel, then time it against the best baseline.",
        example="python bench/kernels.py --batch-size 32 --out kernels.json",
    )
    parser.add_argument("--batch-size", type=int, default=None, help="32 on a CPU, 128 on a GPU")
    parser.add_argument("--rounds", type=int, default=50, help="samples per contender")
    parser.add_argument("--threads", type=int, default=None, help="on a CPU; 1 on a busy machine")
    parser.add_argument("--op", choices=sorted(BENCHES), action="append", help="only this op")
    parser.add_argument("--out", metavar="FILE", help="write the rows as a bench file")
    parser.add_argument("--json", action="store_true", help="the rows as JSON on stdout")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 2:
        raise InputError(f"rounds is {arguments.rounds}: quantiles need at least 2")

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = dispatch.default_device()
    batch = arguments.batch_size or (128 if device.type == "cuda" else 32)
    torch.manual_seed(0)
    found = []
    for name in arguments.op or sorted(BENCHES):
        for work in BENCHES[name](batch, device):
            for backend in dispatch.find(name).backends[:-1]:
                named_anyway = backend.name == "triton" and dispatch.interpreting()
                if named_anyway or dispatch.reasons(
                    dispatch.find(name), backend.name, (work.sets[0]["x"],)
                ):
                    continue
                found.append(rows(work, backend.name, arguments.rounds))
                say(line(found[-1]))
    payload = {"environment": describe_environment(), "rows": found}
    if arguments.out:
        write_json(arguments.out, "bench", payload)
        say(f"wrote {len(found)} rows to {arguments.out}")
    if arguments.json:
        print_json(payload)
    return 0 if all(row["max_error"] < TOLERANCE[row["dtype"]] for row in found) else 2


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    head = (
        f"{row['op']} {row['direction']:<8} {row['shape']!s:<15} {row['active_share']:<6} "
        f"{row['dtype']} {row['backend']:<6} error {row['max_error']:.0e}"
    )
    if "milliseconds_median" not in row:
        return f"{head}  FAILED the check, not timed"
    return (
        f"{head}  {row['milliseconds_median']:.4f} ms (floor {row['floor_milliseconds']:.4f})  "
        f"{row['speedup']:.2f}x of {row['best_baseline']}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
