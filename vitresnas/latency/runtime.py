"""How a module is run: which runtimes this machine can measure, and why not the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitresnas.errors import InputError

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

Call = Callable[[], object]


def refuse_runtime(runtime: str, device: str) -> None:
    """Raise InputError, with the reason, for a runtime that cannot be measured here."""
    if runtime == "cuda-graph" and not device.startswith("cuda"):
        raise InputError(
            f"runtime cuda-graph replays work recorded on an NVIDIA GPU and the device is {device}:"
            " use --runtime eager, or --device cuda where there is one"
        )
    if runtime == "compile":
        raise InputError(
            "runtime compile cannot be measured yet: compiled blocks fuse across the pieces of the "
            "table, so their times do not add up; use --runtime eager"
        )


def prepare(module: nn.Module | Callable[[Tensor], object], x: Tensor, runtime: str) -> Call:
    """A call of no arguments that runs `module` on `x`, which stays where it is."""
    if runtime == "cuda-graph":
        return _capture(module, x)
    return lambda: module(x)


def _capture(module: Callable[[Tensor], object], x: Tensor) -> Call:
    """Record one forward pass as a CUDA graph; the call replays it."""
    stream = torch.cuda.Stream(x.device)
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):  # lazy initialisation must not be recorded
        for _ in range(3):
            module(x)
    torch.cuda.current_stream(x.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = module(x)

    def replay() -> object:
        graph.replay()
        return output  # every replay writes into it, so it must stay alive

    return replay
