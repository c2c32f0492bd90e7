"""Time every op's kernels against the best plain way to do the same, after checking them.

    python bench/kernels.py --out bench/results/cpu-xeon-2core/kernels.json
    python bench/kernels.py --aot sm_90 --out FILE      without a GPU: compile, do not time

Per row: agreement with float64 first (a kernel that disagrees is not timed), then the contenders in
turns, each on inputs that left the cache; medians, the floor (the larger of a copy of the bytes and
the matrix products at the rate of a large one, both measured), and the speedup against the *best*
baseline. On a GPU calls are timed inside CUDA graphs. The cases are in bench/kernel_cases/.
With --aot a row is what the compiler made of one kernel; a spill ends with exit code 2.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kernel_cases.work import DTYPES, Work
from timing import Rivals, time_rivals
from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import write_json
from vitresnas.latency.environment import describe_environment
from vitresnas.ops import dispatch
from vitresnas.ops.ahead_of_time import TARGETS, complaint, cuda_rows, triton_rows

TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}  # relative norm, as in tests/ops
CASES = Path(__file__).parent / "kernel_cases"
OPS = tuple(sorted(path.stem for path in CASES.glob("[a-z]*.py") if path.stem != "work"))


def works(op: str, batch: int, device: torch.device) -> Iterator[Work]:
    """Everything that is timed of `op`."""
    found: Iterator[Work] = importlib.import_module(f"kernel_cases.{op}").works(batch, device)
    return found


def measure(work: Work, backend: str, rounds: int) -> dict[str, Any]:
    """Check, then time; the row of one work on one backend."""
    row: dict[str, Any] = {
        "op": work.op,
        "case": work.case,
        "direction": work.direction,
        "shape": list(work.shape),
        "active_share": round(work.active_share, 4),
        "dtype": work.dtype,
        "backend": backend,
    }
    ours = on_backend(backend, work.ours)
    row["max_error"] = disagreement(ours(work.sets[0]), work.truth(work.sets[0]))
    if not row["max_error"] < TOLERANCE[work.dtype]:
        return {**row, "passed": False}
    device = work.sets[0]["x"].device
    rivals: Rivals = {
        "ours": [partial(ours, s) for s in work.sets],
        **{name: [partial(f, s) for s in work.sets] for name, f in work.baselines.items()},
        "reference": [partial(on_backend("reference", work.ours), s) for s in work.sets],
        "copy": copies(work, device),
    }
    samples, failed = time_rivals(rivals, rounds, device)
    medians = {name: statistics.median(found) for name, found in samples.items()}
    by_bytes = medians.pop("copy")
    by_flops = work.flops / flops_per_millisecond(work.dtype, device) if work.flops else 0.0
    floor, median = max(by_bytes, by_flops), medians.pop("ours")
    best = min(medians, key=medians.__getitem__)
    fifths = statistics.quantiles(samples["ours"], n=5)
    return {
        **row,
        "milliseconds_median": median,
        "milliseconds_20": fifths[0],
        "milliseconds_80": fifths[3],
        "milliseconds_min": min(samples["ours"]),
        "floor_milliseconds": floor,
        "floor_binds": "bytes" if by_bytes >= by_flops else "flops",
        "floor_share": floor / median,
        "bytes": work.bytes,
        "flops": work.flops,
        "baseline_milliseconds": medians,
        "unsupported_baselines": {**work.impossible, **failed},
        "best_baseline": best,
        "speedup": medians[best] / median,
        "passed": median <= medians["reference"],
    }


def on_backend(backend: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` with the op's backend chosen by name."""

    def named(*arguments: Any) -> Any:
        with dispatch.use_backend(backend):
            return call(*arguments)

    return named


def copies(work: Work, device: torch.device) -> list[Callable[[], Any]]:
    """Copies that read and write as many bytes as the work must, between buffers in rotation."""
    half = max(1, work.bytes // 2)
    pairs = torch.empty((len(work.sets), 2, half), dtype=torch.uint8, device=device).fill_(1)
    return [partial(to.copy_, source) for source, to in pairs]


@functools.cache
def flops_per_millisecond(dtype: str, device: torch.device) -> float:
    """The rate of a large square matrix product, the best of a few."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(DTYPES[dtype]) for _ in range(2))
    samples, _ = time_rivals({"gemm": [partial(torch.mm, a, b)]}, 10, device)
    return 2 * side**3 / min(samples["gemm"])


def disagreement(ours: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """The largest relative norm of an output's error, where the truth is not NaN."""
    worst = 0.0
    for found, expected in zip(ours, truth, strict=True):
        counts = ~expected.isnan()
        error = torch.where(counts, found.double() - expected, 0)
        norm = torch.linalg.vector_norm(torch.where(counts, expected, 0))
        relative = float(torch.linalg.vector_norm(error) / norm)
        worst = max(worst, relative) if relative == relative else float("inf")
    return worst


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
    parser.add_argument("--op", choices=OPS, action="append", help="only this op")
    parser.add_argument("--aot", choices=TARGETS, help="compile for this target and time nothing")
    parser.add_argument("--triton-path", metavar="DIR", help="a Triton installed beside the other")
    parser.add_argument("--out", metavar="FILE", help="write the rows as a bench file")
    parser.add_argument("--json", action="store_true", help="the rows as JSON on stdout")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 2:
        raise InputError(f"rounds is {arguments.rounds}: quantiles need at least 2")
    if arguments.triton_path:
        use_triton_of(arguments.triton_path)
    if arguments.aot:
        rows = compile_ahead(arguments.aot)
        publish(rows, arguments)
        return 2 if any(map(complaint, rows)) else 0

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = dispatch.default_device()
    batch = arguments.batch_size or (128 if device.type == "cuda" else 32)
    torch.manual_seed(0)
    rows = []
    for name in arguments.op or OPS:
        for work in works(name, batch, device):
            for backend in timed_backends(work):
                rows.append(measure(work, backend, arguments.rounds))
                say(line(rows[-1]))
    publish(rows, arguments)
    return 0 if all(row["max_error"] < TOLERANCE[row["dtype"]] for row in rows) else 2


def publish(rows: list[dict[str, Any]], arguments: Any) -> None:
    payload = {"environment": describe_environment(), "rows": rows}
    if arguments.out:
        write_json(arguments.out, "bench", payload)
        say(f"wrote {len(rows)} rows to {arguments.out}")
    if arguments.json:
        print_json(payload)


def use_triton_of(folder: str) -> None:
    """Take Triton from `folder` (`pip install --target DIR triton==3.6.0 --no-deps`)."""
    sys.path.insert(0, folder)
    found = importlib.util.find_spec("triton")
    if "triton" in sys.modules or not found or not str(found.origin).startswith(folder):
        raise InputError(f"there is no Triton in {folder}: install one there, with pip --target")


def compile_ahead(target: str) -> list[dict[str, Any]]:
    """What the compilers make of every GPU kernel, here and now."""
    if dispatch.interpreting():
        raise InputError("TRITON_INTERPRET=1 compiles nothing: unset it")
    sources = [triton_rows(target)]
    if shutil.which("nvcc"):
        sources.append(cuda_rows(target))
    else:
        say("no nvcc on PATH: the CUDA kernels are left out")
    rows = []
    for row in itertools.chain(*sources):
        why = complaint(row)
        say(
            f"{row['op']} {row['kernel']} {row['variant']}: {row['registers']} registers, "
            f"{row['tensor_core_instructions']} tensor-core and {row['async_copy_instructions']} "
            f"asynchronous copies{f': REFUSED, it {why}' if why else ''}"
        )
        rows.append(row)
    return rows


def timed_backends(work: Work) -> Iterator[str]:
    """The op's backends that run here, without the reference and without Triton's interpreter."""
    op = dispatch.find(work.op)
    for backend in op.backends[:-1]:
        interpreted = backend.name == "triton" and dispatch.interpreting()
        if not interpreted and not dispatch.reasons(op, backend.name, (work.sets[0]["x"],)):
            yield backend.name


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    head = (
        f"{row['op']} {row['case']} {row['direction']:<8} {row['shape']!s:<15} "
        f"{row['active_share']:<6} {row['dtype']} {row['backend']:<6} error {row['max_error']:.0e}"
    )
    if "milliseconds_median" not in row:
        return f"{head}  FAILED the check, not timed"
    return (
        f"{head}  {row['milliseconds_median']:.4f} ms ({row['floor_share']:.0%} of the floor by "
        f"{row['floor_binds']})  {row['speedup']:.2f}x of {row['best_baseline']}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
