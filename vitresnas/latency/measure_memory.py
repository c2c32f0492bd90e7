"""Peak memory of one forward pass, measured: CUDA's own counter, or torch's events on a CPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

ON_CPU = "torch's allocation events"
ON_CUDA = "torch.cuda.max_memory_allocated"


def measure_peak(network: nn.Module, images_BCHW: Tensor) -> tuple[int, str]:
    """Bytes of weights, images and activations at the fullest moment, and how they were counted."""
    own = [*network.parameters(), *network.buffers(), images_BCHW]
    resident = sum(tensor.numel() * tensor.element_size() for tensor in own)
    if images_BCHW.device.type == "cuda":
        return resident + _more_on_cuda(lambda: network(images_BCHW), images_BCHW.device), ON_CUDA
    return resident + _more_on_cpu(lambda: network(images_BCHW)), ON_CPU


def _more_on_cuda(call: Callable[[], object], device: torch.device) -> int:
    with torch.inference_mode():
        call()  # libraries get their workspaces once and keep them
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before


def _more_on_cpu(call: Callable[[], object]) -> int:
    """The highest sum of allocations less frees while the call runs."""
    with torch.inference_mode():
        call()
        with (
            _silent_stderr(),
            profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
        ):
            call()
    events = profiler.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    return max(accumulate(change for _, change in changes), default=0)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """The profiler announces its start and end from C++, past sys.stderr."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
