"""Settings for every test: Triton kernels run in the interpreter where there is no GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session", autouse=True)
def exact_convolutions() -> None:
    """On a GPU cuDNN rounds fp32 to TF32, and chooses algorithms as it likes, unless told."""
    if HAS_GPU:
        import torch

        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True


@pytest.fixture
def needs_onnx() -> None:
    for name in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(name, reason="needs the extra: pip install -e '.[onnx]'")


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """torch.compile without a compiler: graphs are traced, listed here, and run as they are."""
    import torch

    from vitresnas.models.compiled import compiled_piece

    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda run, **how: real(run, **how, backend=backend))
    compiled_piece.cache_clear()
    yield graphs
    compiled_piece.cache_clear()
