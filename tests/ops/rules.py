"""What every op's tests ask: agreement by two tolerances, and memory that nobody may read.

Activations keep their full row stride. Of the last dimension (or of each of its `segments` equal
parts) only the first widths[g] columns of group g count; columns up to the next multiple of 16 are
zero, what lies beyond is unspecified: tests fill it with NaN.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from vitresnas.ops.dispatch import interpreting

GPU = pytest.mark.gpu
BACKENDS = [
    pytest.param("reference", "cpu", id="reference"),
    pytest.param("cpp", "cpu", id="cpp"),
    pytest.param("triton", "cpu", id="triton-interpreter"),
    pytest.param("reference", "cuda", id="reference-gpu", marks=GPU),
    pytest.param("triton", "cuda", id="triton-gpu", marks=GPU),
]
WITH_CUDA = [*BACKENDS, pytest.param("cuda", "cuda", id="cuda-gpu", marks=GPU)]

RELATIVE_NORM = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 1e-2,
    torch.float16: 2e-3,
}


def check_close(
    name: str, ours: Tensor, truth: Tensor, plain: Tensor | None, dtype: torch.dtype
) -> None:
    """Assert both rules on values that count (call it on the active part).

    truth: float64. plain: what plain torch computes in `dtype`, where there is such: ours may
    be off by twice as much, plus the grain of the storage type (flash-attention's rule).
    """
    assert torch.isfinite(ours).all(), f"{name}: not finite"
    assert ours.shape == truth.shape, f"{name}: shape {tuple(ours.shape)}, not {tuple(truth.shape)}"
    error = (ours.double() - truth).abs()
    norm = torch.linalg.vector_norm(truth).clamp(1e-30)
    relative = float(torch.linalg.vector_norm(error) / norm)
    assert relative < RELATIVE_NORM[dtype], f"{name}: off by {relative:.1e} of the norm"
    if plain is None or dtype == torch.float64 or not error.numel():
        return
    rounded = truth.to(dtype)
    grain = 2 * ((rounded + 0.3) - 0.3 - rounded).abs().max().double()
    theirs = (plain.double() - truth).abs().max()
    assert error.max() <= 2 * theirs + grain, f"{name}: largest error {float(error.max()):.1e}"


def active(like_BX: Tensor, widths: Sequence[int], segments: int = 1, to: int = 1) -> Tensor:
    """True where columns count (widths rounded up to a multiple of `to`), shaped as `like_BX`."""
    columns = like_BX.shape[-1] // segments
    width_G = torch.tensor([min(-(-w // to) * to, columns) for w in widths], device=like_BX.device)
    width_B = width_G.repeat_interleave(like_BX.shape[0] // len(widths))
    mask_BC = torch.arange(columns, device=like_BX.device) < width_B[:, None]
    mask_BX = mask_BC.repeat(1, segments)
    middle = [1] * (like_BX.dim() - 2)
    return mask_BX.view(like_BX.shape[0], *middle, like_BX.shape[-1]).expand_as(like_BX)


def settled(x_BX: Tensor, widths: Sequence[int], fill: float = 0.0, segments: int = 1) -> Tensor:
    """`x_BX` as ops hand it on: zero from its width to the next 16, `fill` beyond."""
    x = torch.where(active(x_BX, widths, segments), x_BX, 0)
    return torch.where(active(x_BX, widths, segments, to=16), x, fill)


@contextmanager
def torch_empty_is_nan() -> Iterator[None]:
    """Within the block torch.empty hands out NaN, so that output which is not written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def few_steps_in_the_interpreter(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    """Tiles of `op` that sum 64 elements at a time: the interpreter pays by the step."""
    if interpreting() and importlib.util.find_spec("triton"):
        kernel = importlib.import_module(f"vitresnas.kernels.{op}")
        tiles = {key: ((64, 64, 64), 4, 1) for key in kernel.TILES}
        monkeypatch.setattr(kernel, "TILES", tiles)
