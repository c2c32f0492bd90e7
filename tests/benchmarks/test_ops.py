"""How long a call of each op takes, ours by backend beside plain torch, on the CPU.

    pytest tests/benchmarks --benchmark-enable --benchmark-autosave             before a change
    pytest tests/benchmarks --benchmark-enable --benchmark-compare              after it

The cases are those of bench/kernels.py in float32 at mean widths, with few images: numbers that are
reported come from there, where rivals take turns on cold caches. Without --benchmark-enable every
case runs once, and ours is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from kernel_cases.measure import TIMED, TOLERANCE, disagreement, on_backend, works
from kernel_cases.work import Work
from vitresnas.ops import dispatch

IMAGES = 2


def cases() -> Iterator[Any]:
    for op in TIMED:
        for work in works(op, IMAGES, torch.device("cpu")):
            if work.dtype != "fp32":
                continue
            backends = [
                b.name for b in dispatch.find(op).backends if b.name in ("cpp", "reference")
            ]
            shape = "x".join(map(str, work.shape))
            head = "-".join(filter(None, (op, work.case, work.direction, shape)))
            for rival in (*backends, *work.baselines):
                yield pytest.param(work, rival, id=f"{head}-{rival.replace(' ', '-')}")


@pytest.mark.parametrize(("work", "rival"), [*cases()])
def test_one_call(benchmark, work: Work, rival: str):
    torch.manual_seed(0)
    s = work.draw()
    if rival in work.baselines:
        call = work.baselines[rival]
    elif why := dispatch.reasons(dispatch.find(work.op), rival, (s["x"],)):
        pytest.skip("; ".join(why))
    else:
        call = on_backend(rival, work.ours)
        # A benchmark of a wrong answer is worth nothing.
        assert disagreement(call(s), work.truth(s)) < TOLERANCE[work.dtype]
    benchmark.group = f"{work.op} {work.case} {work.direction} {work.shape}"
    benchmark(call, s)
