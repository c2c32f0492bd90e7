"""How a module is run: which runtimes this machine can measure, and why not the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitresnas.errors import InputError
from vitresnas.models.compiled import compile_pieces, compiled_piece, compiled_runner
from vitresnas.models.graphed import record
from vitresnas.models.vit_res import ViTRes
from vitresnas.space.operations import Operation

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
    if runtime == "compile" and (missing := _missing_compiler(device)):
        raise InputError(
            f"runtime compile needs {missing}, which is not here: install it, or use "
            "--runtime eager"
        )


def prepare(
    module: Callable[[Tensor], Any],
    x: Tensor,
    runtime: str,
    operation: Operation | None = None,
) -> Call:
    """A call of no arguments that runs `module` on `x`, which stays where it is.

    operation: the piece that the module is, if it is one; compiled code is shared by that name.
    Compiling and recording happen in here.
    """
    if runtime == "cuda-graph":
        return _recorded(module, x)
    if runtime == "compile":
        return _compiled(module, x, operation)
    return lambda: module(x)


def _recorded(module: Callable[[Tensor], Any], x: Tensor) -> Call:
    graph, output = record(module, x)

    def replay() -> Any:
        graph.replay()
        return output  # every replay writes into it, so it must stay alive

    return replay


def _compiled(module: Callable[[Tensor], Any], x: Tensor, operation: Operation | None) -> Call:
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


def _missing_compiler(device: str) -> str | None:
    """What torch.compile lacks here, in words."""
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device.startswith("cuda"):
        return None if has_triton() else "Triton with a GPU that it can compile for"
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        wanted = config.cpp.cxx if isinstance(config.cpp.cxx, (list, tuple)) else [config.cpp.cxx]
        return f"a C++ compiler ({', '.join(name for name in wanted if name)})"
    return None
