"""The one place a backend is chosen: cuda | triton | cpp | reference.

Each backend is asked for its *reasons not to run*; the first in an op's list without any is taken.
`VITRESNAS_BACKEND=name`, or `with use_backend(name):`, decides by name and fails with the reasons.
`VITRESNAS_UNPROVEN=1` also takes GPU kernels that no committed result has proven on this GPU yet;
they still have to agree with the reference at their first use.
The choice is made inside the op's implementation, on real tensors, where torch.compile never looks.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitresnas.errors import BackendError
from vitresnas.ops import native
from vitresnas.ops.proven import proven

BACKENDS = ("cuda", "triton", "cpp", "reference")
TOLERANCE = 1e-3  # relative norm of the check at first use, float32 inputs

_by_name: str | None = None  # process-wide: autograd runs GPU backward passes in its own threads


@dataclass(frozen=True)
class Backend:
    """One implementation of an op.

    refuses: the op's own reasons (dtype, shape) why it cannot run on some inputs.
    loses: why, as measured, the next one is faster on them; naming the backend overrides it.
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    refuses: Callable[[Sequence[Tensor]], tuple[str, ...]] = lambda inputs: ()
    loses: Callable[[Sequence[Tensor]], tuple[str, ...]] = lambda inputs: ()


@dataclass(frozen=True, eq=False)  # there is one of each: compared and hashed by identity, at once
class Op:
    """An op and its backends, best first; the last one is the reference and always runs.

    `trial(backend, device)` runs forward and backward on a tiny fixed float32 input.
    """

    name: str
    backends: tuple[Backend, ...]
    trial: Callable[[Backend, torch.device], Sequence[Tensor]]


def triton_backend(op: str) -> Backend:
    """The kernels of `vitresnas.kernels.<op>`, which are imported when they are first asked for."""
    kernel = functools.cache(lambda: importlib.import_module(f"vitresnas.kernels.{op}"))
    return Backend(
        "triton",
        lambda *arguments: kernel().forward(*arguments),
        lambda *arguments: kernel().backward(*arguments),
        lambda inputs: tuple(kernel().refuses(inputs)),
    )


def find(name: str) -> Op:
    """The op of the module `vitresnas.ops.<name>`."""
    found: Op = importlib.import_module(f"vitresnas.ops.{name}").OP
    return found


def choose(op: Op, inputs: Sequence[Tensor]) -> Backend:
    """The backend that runs `op` on `inputs`; raises BackendError if one named cannot."""
    wanted = _by_name or os.environ.get("VITRESNAS_BACKEND")
    if not wanted:
        device = inputs[0].device
        for backend in _able(op, device.type):
            if backend.refuses(inputs) or backend.loses(inputs) or doubts(op, backend, device):
                continue
            return backend
        return op.backends[-1]
    if why := reasons(op, wanted, inputs):
        raise BackendError(f'backend "{wanted}" cannot run {op.name}: {"; ".join(why)}')
    return next(backend for backend in op.backends if backend.name == wanted)


@functools.cache
def _able(op: Op, device: str) -> tuple[Backend, ...]:
    """The backends before the reference that this machine can run on such a device."""
    return tuple(one for one in op.backends[:-1] if not machine_reasons(one.name, device))


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every op on the backend `name` within the block, in all threads of this process."""
    global _by_name
    before, _by_name = _by_name, name
    try:
        yield
    finally:
        _by_name = before


def as_given(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """The implementation of an op, computing in its tensors' own types.

    Autocast stays in force inside an op and would round the operands of its products behind the
    back of kernels that read the result by address.
    """

    @functools.wraps(implementation)
    def run(first: Tensor, *rest: Any) -> Any:
        kind = first.device.type
        if not torch.is_autocast_enabled(kind):
            return implementation(first, *rest)
        with torch.autocast(kind, enabled=False):
            return implementation(first, *rest)

    return run


def reasons(op: Op, name: str, inputs: Sequence[Tensor] | None = None) -> tuple[str, ...]:
    """Why the backend `name` cannot run `op` at all; without inputs: on this machine's device."""
    if name not in BACKENDS:
        return (f'there is no backend "{name}": use {", ".join(BACKENDS)}',)
    backend = next((one for one in op.backends if one.name == name), None)
    if backend is None:
        offered = ", ".join(one.name for one in op.backends)
        return (f"{op.name} has no {name} kernel: use {offered}",)
    device = default_device() if inputs is None else inputs[0].device
    return machine_reasons(name, device.type) or (backend.refuses(inputs) if inputs else ())


@functools.cache
def machine_reasons(name: str, device: str) -> tuple[str, ...]:
    """Why no op can run on the backend `name` with tensors on `device` ("cpu" or "cuda")."""
    elsewhere = f"runs on an NVIDIA GPU only and the tensors are on the {device}: move them there"
    if not torch.cuda.is_available():
        elsewhere = "there is no NVIDIA GPU here: run it on a machine that has one"
    if name == "cpp":
        if why := native.missing():
            return (why,)
        return () if device == "cpu" else (f"runs on the cpu only, the tensors are on {device}",)
    if name == "triton":
        if importlib.util.find_spec("triton") is None:
            return ("Triton is not installed: run `pip install triton` (Linux only)",)
        return () if device == "cuda" or interpreting() else (elsewhere,)
    if name == "cuda":
        if why := native.missing():
            return (why,)
        if not native.module().has_cuda:
            return ("built without CUDA: put nvcc on PATH and run `pip install -e .` again",)
        return () if device == "cuda" else (elsewhere,)
    return ()


def doubts(op: Op, backend: Backend, device: torch.device) -> tuple[str, ...]:
    """Why a backend that could run is still not taken by itself; naming it overrides these."""
    if backend.name not in ("cuda", "triton"):
        return ()
    if backend.name == "triton" and interpreting():
        return ("the Triton interpreter is for tests: name the backend to use it",)
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    if not (proven(op.name, backend.name, architecture) or os.environ.get("VITRESNAS_UNPROVEN")):
        return (
            f"no committed passing result for {architecture}: run bench/gpu_check.sh and commit "
            "what it writes under bench/results/",
        )
    return disagreement(op, backend, device)


@functools.cache
def disagreement(op: Op, backend: Backend, device: torch.device) -> tuple[str, ...]:
    """Check a kernel against the reference on a tiny input, once per process and device.

    It synchronises, so run a step before capturing a CUDA graph.
    """
    worst = 0.0
    try:
        with exact_convolutions():
            truths = op.trial(op.backends[-1], device)
        pairs = zip(op.trial(backend, device), truths, strict=True)
        for ours, truth in pairs:
            error = torch.linalg.vector_norm((ours - truth).double())
            worst = max(worst, float(error / torch.linalg.vector_norm(truth.double())))
            worst = worst if torch.isfinite(ours).all() else float("inf")
    except Exception as error:  # whatever it is, a kernel that cannot run must step aside
        why = f"its first use on {device} failed ({error})"
    else:
        if worst < TOLERANCE:
            return ()
        why = f"it disagrees with the reference on {device} by {worst:.1e} of the norm"
    warnings.warn(f"{op.name}: the {backend.name} kernel is not used: {why}", stacklevel=2)
    return (why,)


@contextlib.contextmanager
def exact_convolutions() -> Iterator[None]:
    """Within the block cuDNN computes fp32 convolutions in fp32: by default it rounds to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def interpreting() -> bool:
    """True where Triton kernels run in its interpreter, on tensors of any device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def default_device() -> torch.device:
    """The device this machine computes on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
