"""compile: every priced piece compiled once by torch.compile, whole networks made of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitresnas.errors import InputError
from vitresnas.latency.runtime import Call, Runtime
from vitresnas.models.compiled import compile_pieces, compiled_piece, compiled_runner
from vitresnas.models.vit_res import ViTRes
from vitresnas.space.operations import Operation


def refuse(device: str) -> str | None:
    """What torch.compile lacks here, in words."""
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device.startswith("cuda"):
        if has_triton():
            return None
        return "needs Triton and a GPU it can compile for, which this machine lacks: install them"
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        wanted = config.cpp.cxx if isinstance(config.cpp.cxx, (list, tuple)) else [config.cpp.cxx]
        names = ", ".join(name for name in wanted if name)
        return f"needs a C++ compiler ({names}), which this machine lacks: install it"
    return None


def prepare(module: Callable[[Tensor], Any], x: Tensor, operation: Operation | None = None) -> Call:
    if isinstance(module, ViTRes):
        run = compile_pieces(module)
    else:
        runner = compiled_piece(operation) if operation else compiled_runner("network")

        def run(x: Tensor) -> Any:
            return runner(module, x)

    try:
        run(x)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        first_line = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"torch.compile fails on {operation or 'this network'} ({first_line}): "
            "use --runtime eager"
        ) from error
    return lambda: run(x)


RUNTIME = Runtime(
    "compile",
    prepare,
    refuse,
    notice="compiling takes seconds per operation; what was compiled here before, even by an "
    "interrupted run, is reused",
)
