"""Check one work against float64, then time it against its rivals; the row that comes out."""

from __future__ import annotations

import functools
import importlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kernel_cases.timing import Rivals, time_rivals
from kernel_cases.work import DTYPES, Work
from vitresnas.ops import OPS, dispatch

CACHE_BYTES = 192 << 20  # inputs in rotation: three times an H100's second-level cache
TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}  # relative norm, as in tests/ops
TIMED = tuple(op for op in OPS if Path(__file__).with_name(f"{op}.py").exists())
"""Every op with cases."""


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
    ours, sets = on_backend(backend, work.ours), work.sets(CACHE_BYTES)
    row["max_error"] = disagreement(ours(sets[0]), work.truth(sets[0]))
    if not row["max_error"] < TOLERANCE[work.dtype]:
        return {**row, "passed": False}
    device = sets[0]["x"].device
    row["default_backend"] = dispatch.choose(dispatch.find(work.op), work.chosen_by(sets[0])).name
    rivals: Rivals = {
        "ours": [partial(ours, s) for s in sets],
        **{name: [partial(f, s) for s in sets] for name, f in work.baselines.items()},
        "reference": [partial(on_backend("reference", work.ours), s) for s in sets],
        "copy": copies(work.bytes, len(sets), device),
    }
    samples, failed = time_rivals(rivals, rounds, device)
    if missing := {"ours", "copy", "reference"} & failed.keys():
        why = "; ".join(f"{name}: {failed[name]}" for name in sorted(missing))
        return {**row, "passed": False, "not_timed": why}
    medians = {name: statistics.median(found) for name, found in samples.items()}
    by_bytes = medians.pop("copy")
    by_flops = work.flops / flops_per_millisecond(work.dtype, device) if work.flops else 0.0
    floor, median = max(by_bytes, by_flops), medians.pop("ours")
    best = min(medians, key=medians.__getitem__)
    exact = min(filter(work.exact, medians), key=medians.__getitem__)
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
        "best_exact_baseline": exact,
        "speedup_over_exact": medians[exact] / median,
        "passed": median <= medians["reference"],
    }


def on_backend(backend: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` with the op's backend chosen by name."""

    def named(*arguments: Any) -> Any:
        with dispatch.use_backend(backend):
            return call(*arguments)

    return named


def copies(bytes: int, sets: int, device: torch.device) -> list[Callable[[], Any]]:
    """Copies that read and write as many bytes as the work must, between buffers in rotation."""
    # As floats: a copy of bytes alone runs slower on some devices.
    pairs = torch.ones((sets, 2, max(1, bytes // 8)), device=device)
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


def timed_backends(work: Work) -> Iterator[str]:
    """The op's backends that run here, without the reference and without Triton's interpreter."""
    op, probe = dispatch.find(work.op), work.draw()["x"]
    for backend in op.backends[:-1]:
        interpreted = backend.name == "triton" and dispatch.interpreting()
        if not interpreted and not dispatch.reasons(op, backend.name, (probe,)):
            yield backend.name
