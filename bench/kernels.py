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
import importlib.util
import itertools
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from kernel_cases.measure import TIMED, TOLERANCE, measure, timed_backends, works
from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import write_json
from vitresnas.latency.environment import describe_environment
from vitresnas.ops import dispatch
from vitresnas.ops.ahead_of_time import TARGETS, complaint, cuda_rows, triton_rows


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
    parser.add_argument("--seconds", type=float, help="begin no more rows after this long")
    parser.add_argument("--op", choices=TIMED, action="append", help="only this op")
    parser.add_argument("--aot", choices=TARGETS, help="compile for this target and time nothing")
    parser.add_argument("--language", choices=("triton", "cuda"), help="with --aot: only these")
    parser.add_argument("--triton-path", metavar="DIR", help="a Triton installed beside the other")
    parser.add_argument("--out", metavar="FILE", help="write the rows as a bench file")
    parser.add_argument("--json", action="store_true", help="the rows as JSON on stdout")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 2:
        raise InputError(f"rounds is {arguments.rounds}: quantiles need at least 2")
    if arguments.triton_path:
        use_triton_of(arguments.triton_path)
    if arguments.aot:
        rows = compile_ahead(arguments.aot, arguments.language)
        publish(rows, arguments)
        return 2 if any(map(complaint, rows)) else 0

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = dispatch.default_device()
    batch = arguments.batch_size or (128 if device.type == "cuda" else 32)
    torch.manual_seed(0)
    rows, began, late = [], time.monotonic(), 0
    complete: list[str] = []
    for name in arguments.op or TIMED:
        before = late
        for work in works(name, batch, device):
            for backend in timed_backends(work):
                if arguments.seconds and time.monotonic() - began > arguments.seconds:
                    late += 1
                    continue
                rows.append(measure(work, backend, arguments.rounds))
                say(line(rows[-1]))
                if arguments.out:  # at once: nothing measured is lost when this is killed
                    write_json(arguments.out, "bench", payload(rows, complete))
        complete += [name] if late == before else []
    if late:
        say(f"{late} rows are left out: {arguments.seconds:.0f} s have passed")
    publish(rows, arguments, complete)
    return 0 if all(row["max_error"] < TOLERANCE[row["dtype"]] for row in rows) else 2


def publish(rows: list[dict[str, Any]], arguments: Any, complete: Sequence[str] = ()) -> None:
    if arguments.out:
        write_json(arguments.out, "bench", payload(rows, complete))
        say(f"wrote {len(rows)} rows to {arguments.out}")
    if arguments.json:
        print_json(payload(rows, complete))


def payload(rows: list[dict[str, Any]], complete: Sequence[str]) -> dict[str, Any]:
    """complete: the ops whose every row was timed; no other one is proven by this file."""
    return {"environment": environment(), "complete": list(complete), "rows": rows}


environment = functools.cache(describe_environment)


def use_triton_of(folder: str) -> None:
    """Take Triton from `folder` (`pip install --target DIR triton==3.6.0 --no-deps`)."""
    sys.path.insert(0, folder)
    found = importlib.util.find_spec("triton")
    if "triton" in sys.modules or not found or not str(found.origin).startswith(folder):
        raise InputError(f"there is no Triton in {folder}: install one there, with pip --target")


def compile_ahead(target: str, language: str | None) -> list[dict[str, Any]]:
    """What the compilers make of every GPU kernel, here and now."""
    if dispatch.interpreting():
        raise InputError("TRITON_INTERPRET=1 compiles nothing: unset it")
    sources = [triton_rows(target)] if language != "cuda" else []
    if language == "cuda" or (language is None and shutil.which("nvcc")):
        sources.append(cuda_rows(target))
    elif language is None:
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
