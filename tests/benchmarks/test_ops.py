"""How long one call of each op takes: `pytest tests/benchmarks --benchmark-enable`.

For watching a change while working; the numbers that are reported come from bench/kernels.py.
"""

from __future__ import annotations

import pytest
import torch

from vitresnas.ops.dispatch import reasons, use_backend
from vitresnas.ops.masked_layer_norm import OP, masked_layer_norm, reference

SHAPES = [(8, 257, 256), (8, 65, 512), (8, 17, 1024)]  # the three stages


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward-and-backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_masked_layer_norm(benchmark, backend, shape, backward):
    x = torch.randn(shape)
    if why := reasons(OP, backend, (x,)):
        pytest.skip("; ".join(why))
    x.requires_grad_(backward)
    weight = torch.randn(shape[-1], requires_grad=backward)
    bias = torch.randn(shape[-1], requires_grad=backward)
    widths = torch.tensor([shape[-1], shape[-1] // 2], dtype=torch.int32)
    dy = torch.randn(shape)

    def call():
        y = masked_layer_norm(x, weight, bias, widths)
        return torch.autograd.grad(y, (x, weight, bias), dy)[0] if backward else y

    with use_backend(backend):
        result = benchmark(call)
    # A benchmark of a wrong answer is worth nothing.
    y = reference(x, weight, bias, widths)
    expected = torch.autograd.grad(y, x, dy)[0] if backward else y
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
