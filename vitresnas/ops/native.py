"""The compiled module `vitresnas._C`: why it may be missing, and its status codes as sentences."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import torch  # before vitresnas._C, which then shares torch's OpenMP threads instead of its own

from vitresnas.errors import BackendError, InputError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
"""Storage types as csrc/status.h numbers them."""

CUDA_ERROR = 1000  # codes from here on are this plus a cudaError_t, as in csrc/status.h

_MESSAGES = {
    1: "this dtype has no compiled kernel: use float32, float64 or bfloat16",
    2: "a width lies below 0 or above the number of channels: give widths within the channels",
    3: "the rows do not divide into the groups: give a batch that is a multiple of the groups",
}


@functools.cache
def missing() -> str | None:
    """Why the compiled module cannot be used, with the way to mend it; None where it can."""
    try:
        importlib.import_module("vitresnas._C")
    except ModuleNotFoundError:
        return (
            "not built: install a C++17 compiler (for example `apt install g++`), then run "
            "`pip install -e .` again"
        )
    except ImportError as error:
        return f"built but does not load ({error}): run `pip install -e .` again on this machine"
    return None


def refuses(*tensors: Tensor) -> tuple[str, ...]:
    """Why no C++ kernel runs on these: the first dtype that has none."""
    for tensor in tensors:
        if tensor.dtype not in DTYPES:
            return (f"has no kernel for {tensor.dtype}: use float32, float64 or bfloat16",)
    return ()


def module() -> Any:
    """The compiled module; raises BackendError where there is none."""
    if reason := missing():
        raise BackendError(f"the compiled kernels are {reason}")
    return importlib.import_module("vitresnas._C")


def stream(tensor: Tensor) -> int:
    """The address of the CUDA stream that work on `tensor` belongs to now; capture included."""
    return torch.cuda.current_stream(tensor.device).cuda_stream


def check(code: int, op: str, **tensors: Tensor) -> None:
    """Raise what a status code says, with the op and the shapes it was given."""
    if not code:
        return
    shapes = ", ".join(
        f"{name} {tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}"
        for name, t in tensors.items()
    )
    if code >= CUDA_ERROR:
        error = module().cuda_message(code - CUDA_ERROR)
        raise BackendError(
            f"{op}({shapes}): CUDA error {code - CUDA_ERROR}, {error}: "
            "run with VITRESNAS_BACKEND=reference to go on without this kernel"
        )
    raise InputError(f"{op}({shapes}): {_MESSAGES.get(code, f'failed with code {code}')}")
