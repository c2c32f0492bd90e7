"""What numbers were measured on: written into every file that carries numbers. Torch comes late."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from vitresnas.latency.cores import cores

PACKAGES = ("vitresnas", "torch", "triton", "timm", "numpy")


def describe_environment() -> dict[str, object]:
    """This machine as a JSON object.

    `device` is the GPU's name or the processor's; `architecture` is "sm_90" or the processor's
    family; `driver` and `cuda` are empty without a GPU; `load_average` (of one minute) says how
    busy the machine was; `commit` ends in "+" where the checkout had changes, and is empty outside
    a checkout.
    """
    import torch

    gpu = torch.cuda.is_available()
    capability = torch.cuda.get_device_capability() if gpu else (0, 0)
    return {
        "device": torch.cuda.get_device_name() if gpu else processor(),
        "architecture": "sm_{}{}".format(*capability) if gpu else platform.machine(),
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "driver": driver() if gpu else "",
        "cuda": (torch.version.cuda or "") if gpu else "",
        "versions": versions(),
        "platform": platform.platform(),
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0,
    }


def versions() -> dict[str, str]:
    """Python and the packages that shape the numbers; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def processor() -> str:
    """The processor's name as Linux and macOS know it, else its family."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()


@functools.cache
def driver() -> str:
    """The version of the NVIDIA driver, or nothing."""
    lines = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    return lines[0].strip() if lines else ""


def commit() -> str:
    """The checkout's commit, with "+" after it where files were changed; VITRESNAS_COMMIT says it
    where the files came without their repository, as into a container."""
    if told := os.environ.get("VITRESNAS_COMMIT"):
        return told
    root = str(Path(__file__).resolve().parents[2])
    if not (Path(root) / ".git").exists():
        return ""  # an installed copy: some other repository around it must not speak for it
    name = output("git", "-C", root, "rev-parse", "--short=12", "HEAD")
    changed = output("git", "-C", root, "status", "--porcelain", "--untracked-files=no")
    return name + ("+" if name and changed else "")


def output(*command: str) -> str:
    """What a command prints, or nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
