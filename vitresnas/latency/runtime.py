"""Runtimes: how a module is run while it is timed, and where their names come from. No torch here.

A runtime is one value. Ours and those of other packages are found the same way, as entry points of
the group `vitresnas.runtimes`, and imported only when they are asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol

from vitresnas.errors import InputError
from vitresnas.space.operations import Operation

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "vitresnas.runtimes"
OURS = tuple(
    EntryPoint(name, f"vitresnas.latency.runtimes.{module}:RUNTIME", GROUP)
    for name, module in (
        ("eager", "eager"),
        ("compile", "compiled"),
        ("cuda-graph", "cuda_graph"),
        ("onnxruntime", "onnx"),
    )
)

Call = Callable[[], object]


class Prepare(Protocol):
    def __call__(
        self, module: Callable[[Tensor], Any], x: Tensor, operation: Operation | None
    ) -> Call:
        """A call of no arguments that runs `module` on `x`, which stays where it is, and returns
        what the module would.

        Whatever is slow the first time (compiling, exporting, recording) happens in here; torch's
        number of threads is the one to use. `operation`: the piece that the module is, if it is
        one; equal operations compute the same on the same shapes, with other weights. Raises
        InputError for a module that this runtime cannot run.
        """


def _runs_everywhere(device: str) -> str | None:
    return None


def _no_versions(device: str) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Runtime:
    """One way to run modules.

    `refuse(device)`: why it cannot run on "cpu", "cuda" or "cuda:N" here, and how to mend that, to
        follow the runtime's name in a sentence; None where it can.
    `versions(device)`: libraries besides torch that decide how fast it is.
    `notice`: told before the pieces of a space are prepared, where that takes long.
    """

    name: str
    prepare: Prepare
    refuse: Callable[[str], str | None] = _runs_everywhere
    versions: Callable[[str], Mapping[str, str]] = _no_versions
    notice: str = ""


def runtime_names() -> tuple[str, ...]:
    """Ours, then those that installed packages offer."""
    return tuple(dict.fromkeys(entry.name for entry in _offered()))


def runtime_name(text: str) -> str:
    """The name of a runtime, checked. Raises InputError, listing the names."""
    if text not in runtime_names():
        raise InputError(f"runtime is {text!r}: use one of {', '.join(runtime_names())}")
    return text


def find_runtime(name: str) -> Runtime:
    """The runtime of this name. Raises InputError where none has it, or its package is broken."""
    found = [entry for entry in _offered() if entry.name == runtime_name(name)]
    if len({entry.value for entry in found}) > 1:
        raise InputError(
            f"runtime {name} is offered twice ({', '.join(entry.value for entry in found)}): "
            "uninstall or rename one"
        )
    try:
        runtime = found[0].load()
    except Exception as error:  # whatever another package does when it is imported
        raise InputError(
            f"runtime {name} cannot be loaded from {found[0].value} ({error}): fix or uninstall "
            "the package that offers it"
        ) from error
    if not isinstance(runtime, Runtime) or runtime.name != name:
        raise InputError(
            f"{found[0].value} is {runtime!r}, expected a vitresnas.latency.runtime.Runtime of the "
            f"name {name}: fix or uninstall the package that offers it"
        )
    return runtime


def usable_runtime(name: str, device: str) -> Runtime:
    """The runtime of this name. Raises InputError, with the reason, where it cannot run here."""
    runtime = find_runtime(name)
    if reason := runtime.refuse(device):
        raise InputError(f"runtime {name} {reason}, or use --runtime eager")
    return runtime


def _offered() -> tuple[EntryPoint, ...]:
    return (*OURS, *entry_points(group=GROUP))
