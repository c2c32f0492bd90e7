"""Settings for every test: Triton kernels run in the interpreter where there is no GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HAS_GPU = any(Path("/dev").glob("nvidia[0-9]*"))

# Before anything imports a kernel: Triton reads this when a kernel is defined.
if not HAS_GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if HAS_GPU:
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU: run bench/gpu_check.sh on such a machine")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
