"""eager: the module as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vitresnas.latency.runtime import Call, Runtime
from vitresnas.space.operations import Operation


def prepare(module: Callable[[Tensor], Any], x: Tensor, operation: Operation | None = None) -> Call:
    return lambda: module(x)


RUNTIME = Runtime("eager", prepare)
