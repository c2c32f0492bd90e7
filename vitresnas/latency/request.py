"""What a user asks to be measured, and what that means on this machine."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitresnas.errors import InputError
from vitresnas.latency.condition import DTYPES, Condition
from vitresnas.latency.cores import cores
from vitresnas.latency.environment import processor
from vitresnas.latency.networks import CALIBRATION_NETWORKS
from vitresnas.latency.runtime import runtime_name, usable_runtime
from vitresnas.space.search_space import SearchSpace

LEAST_MEASUREMENTS = CALIBRATION_NETWORKS + 10  # two operations of every kind


@dataclass(frozen=True)
class Request:
    """How to measure; `None` leaves the choice to this machine.

    `seconds`: about how long to measure. Fewer than the least number of rounds are never taken, so
    a slow device or a large space takes longer. `seed_from`: a file, or a shipped device, with
    another condition to estimate this one from, by `measurements` of operations and networks.
    `fresh`: measure again what the file to write holds already under this condition. `compare`:
    existing models to time beside the space's networks, each `NAME` or `NAME@SIZE` of timm's.
    """

    device: str = "auto"
    dtype: str = "fp32"
    batch_size: int | None = None
    runtime: str = "eager"
    threads: int | None = None
    seconds: float = 30.0
    seed_from: str | Path | None = None
    measurements: int = 30
    fresh: bool = False
    compare: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}: use one of {', '.join(DTYPES)}")
        runtime_name(self.runtime)
        for name in ("batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: use a whole number of at least 1")
        if self.measurements < LEAST_MEASUREMENTS:
            raise InputError(
                f"measurements is {self.measurements}: a transfer needs at least "
                f"{LEAST_MEASUREMENTS}, of which {CALIBRATION_NETWORKS} are whole networks"
            )
        if not 0 < self.seconds < math.inf:
            raise InputError(f"seconds is {self.seconds}: use a time above zero")


def default_batch_size(image_size: int, device_type: str) -> int:
    """Batches that keep a device busy without making a CPU wait for seconds.

    CPU: 32 for images of up to 64 pixels, 8 above. GPU: 128.
    """
    if device_type == "cuda":
        return 128
    return 32 if image_size <= 64 else 8


def resolve_device(name: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device torch can use here. Raises InputError."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device is {name!r}: use auto, cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise InputError(f"device is {name!r}: networks run on cpu and cuda devices")
    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or (device.index or 0) >= count:
        raise InputError(
            f"device is {name!r} and torch sees {count} CUDA devices here: use --device cpu"
            + (f" or cuda:0 to cuda:{count - 1}" if count else "")
        )
    return name


def device_name(device: str) -> str:
    """The hardware by name: what a table is for. CPU: model and the cores this process may use."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"{processor()}, {cores()} cores"


def resolve_condition(space: SearchSpace, request: Request) -> Condition:
    """The condition that a request means on this machine, for this space."""
    import torch

    device = resolve_device(request.device)
    runtime = usable_runtime(request.runtime, device)
    return Condition(
        space=space.name,
        space_id=space.id,
        image_size=space.image_size,
        dtype=request.dtype,
        batch_size=request.batch_size
        or default_batch_size(space.image_size, torch.device(device).type),
        runtime=runtime.name,
        **machine(device, request.threads, runtime.versions(device)),
    )


def machine(device: str, threads: int | None, libraries: Mapping[str, str]) -> dict[str, Any]:
    """The part of a condition that is this machine's own: what runs, on what, with what.

    device: as `resolve_device` returns it. threads: the user's choice, else torch's. libraries:
    what a runtime adds to the versions of Python and torch.
    """
    import torch

    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        **({"cuda": str(torch.version.cuda)} if device != "cpu" else {}),
        **libraries,
    }
    return {
        "device": device_name(device),
        "backend": os.environ.get("VITRESNAS_BACKEND") or "auto",
        "threads": threads or torch.get_num_threads(),
        "driver": _driver(device),
        "versions": tuple(sorted(versions.items())),
    }


def _driver(device: str) -> str:
    """What sits between torch and the hardware: NVIDIA's driver, or the kernel of the system."""
    if device.startswith("cuda"):
        try:
            return Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
        except (OSError, IndexError):
            return "NVIDIA driver, version unknown"
    return f"{sys.platform} {platform.release()}"
