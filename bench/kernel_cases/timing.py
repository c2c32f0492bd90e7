"""Milliseconds of rivals that take turns: by the clock on a CPU, in CUDA graphs on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

Rivals = dict[str, list[Callable[[], Any]]]  # by name: one call per set of inputs
WARM_UP = 3


def time_rivals(
    rivals: Rivals, rounds: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Samples in milliseconds per call by name, and why the others could not run."""
    timer = time_in_graphs if device.type == "cuda" else time_by_clock
    return timer(rivals, rounds)


def time_by_clock(rivals: Rivals, rounds: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Every rival once per round, so that a busy spell hits them all; inputs in rotation.

    In one round each takes another set: the same one would be in the caches for all but the first.
    """
    running, failed = tried(rivals)
    samples: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(rounds + WARM_UP):
        for place, (name, calls) in enumerate(running.items()):
            call = calls[(turn + place * len(calls) // len(running)) % len(calls)]
            start = time.perf_counter()
            call()
            if turn >= WARM_UP:
                samples[name].append(1e3 * (time.perf_counter() - start))
    return samples, failed


def time_in_graphs(rivals: Rivals, rounds: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """One CUDA graph per rival over all its sets: free of launch costs, caches cold."""
    graphs: dict[str, torch.cuda.CUDAGraph] = {}
    # One stream for everything: a backward pass runs on the stream that its forward pass ran on.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        running, failed = tried(rivals)
    for name, calls in running.items():
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                for call in calls:
                    call()
            graphs[name] = graph
        except Exception as error:  # a rival that cannot be captured is reported, not timed
            failed[name] = f"cannot be captured in a CUDA graph: {first_line(error)}"
    torch.cuda.synchronize()
    samples: dict[str, list[float]] = {name: [] for name in graphs}
    for turn in range(rounds + WARM_UP):
        for name, graph in graphs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            if turn >= WARM_UP:
                samples[name].append(start.elapsed_time(end) / len(rivals[name]))
    return samples, failed


def tried(rivals: Rivals) -> tuple[Rivals, dict[str, str]]:
    """Call everything once: compilation, lazy loading, and forward passes of backward rivals."""
    running, failed = {}, {}
    for name, calls in rivals.items():
        try:
            for call in calls:
                call()
            running[name] = calls
        except Exception as error:  # whatever it is, the others are still worth timing
            failed[name] = first_line(error)
    return running, failed


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
