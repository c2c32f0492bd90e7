"""Run every GPU kernel once on small inputs, for compute-sanitizer to watch.

    compute-sanitizer --tool memcheck --error-exitcode 9 python bench/sanitize.py

Each kernel that can run here: its own trial in float32, then the cases of bench/kernels.py with one
image per group, forward and backward; ours alone, so that what is reported is ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from kernel_cases.measure import TIMED, on_backend, works
from kernel_cases.work import GROUPS
from vitresnas.doors import Parser, door, say
from vitresnas.errors import InputError
from vitresnas.ops import dispatch


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="bench/sanitize.py",
        description="Run every GPU kernel once on small inputs.",
        example="compute-sanitizer --tool racecheck python bench/sanitize.py --trials",
    )
    parser.add_argument("--trials", action="store_true", help="the tiny trials alone")
    arguments = parser.parse_args(argv)
    device = dispatch.default_device()
    if device.type != "cuda":
        raise InputError("there is no NVIDIA GPU here: run it on a machine that has one")
    for name, kind in itertools.product(TIMED, ("cuda", "triton")):
        op = dispatch.find(name)
        if dispatch.reasons(op, kind):
            continue
        op.trial(next(backend for backend in op.backends if backend.name == kind), device)
        say(f"{name} {kind}: trial")
        for work in () if arguments.trials else works(name, GROUPS, device):
            s = work.draw()
            if work.dtype == "bf16" and not dispatch.reasons(op, kind, (s["x"],)):
                on_backend(kind, work.ours)(s)
                torch.cuda.synchronize()
                say(f"{name} {kind}: {work.case} {work.direction} {work.shape}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
