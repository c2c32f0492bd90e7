"""cuda-graph: the whole pass recorded once and replayed, without the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vitresnas.latency.runtime import Call, Runtime
from vitresnas.models.graphed import record
from vitresnas.space.operations import Operation


def refuse(device: str) -> str | None:
    if device.startswith("cuda"):
        return None
    return (
        f"replays work recorded on an NVIDIA GPU and the device is {device}: use --device cuda "
        "where there is one"
    )


def prepare(module: Callable[[Tensor], Any], x: Tensor, operation: Operation | None = None) -> Call:
    graph, output = record(module, x)

    def replay() -> Any:
        graph.replay()
        return output  # every replay writes into it, so it must stay alive

    return replay


RUNTIME = Runtime("cuda-graph", prepare, refuse)
