"""Masked LayerNorm on every backend against layer normalisation of the slices, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitresnas.errors import InputError
from vitresnas.ops import native
from vitresnas.ops.dispatch import reasons, use_backend
from vitresnas.ops.masked_layer_norm import (
    OP,
    _backward_cpp,
    _forward_cpp,
    masked_layer_norm,
    reference,
)

EPS = 1e-6
GPU = pytest.mark.gpu
BACKENDS = [
    pytest.param("reference", "cpu", id="reference"),
    pytest.param("cpp", "cpu", id="cpp"),
    pytest.param("triton", "cpu", id="triton-interpreter"),
    pytest.param("reference", "cuda", id="reference-gpu", marks=GPU),
    pytest.param("triton", "cuda", id="triton-gpu", marks=GPU),
]
# Relative norm allowed against float64.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}
# (B, ..., C) and one width per group: off every tile grid, empty, one group, two dimensions.
SHAPES = [
    ((4, 3, 40), (40, 23)),
    ((4, 5, 40), (7, 0)),
    ((3, 17, 40), (23,)),
    ((6, 2, 1, 64), (64, 48, 16)),
    ((2, 33), (33, 32)),
    ((2, 5, 300), (257, 300)),
]


@dataclass
class Case:
    x: Tensor
    weight: Tensor
    bias: Tensor
    widths: Tensor
    dy: Tensor

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.x, self.weight, self.bias


def make(shape, widths, dtype=torch.float32, device="cpu", shift=0.0) -> Case:
    generator = torch.Generator().manual_seed(3)

    def draw(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    x, dy = draw(*shape) + shift, draw(*shape)
    weight, bias = draw(shape[-1]), draw(shape[-1])
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    return Case(
        x.to(device, dtype),
        weight.to(device, parameters),
        bias.to(device, parameters),
        torch.tensor(widths, dtype=torch.int32, device=device),
        dy.to(device, dtype),
    )


def run(case: Case, backend: str) -> tuple[Tensor, ...]:
    """y, dx, dweight, dbias by one backend, or a skip that says why it cannot run."""
    if why := reasons(OP, backend, (case.x,)):
        pytest.skip(f"{backend} cannot run here: {'; '.join(why)}")
    x, weight, bias = leaves = [t.detach().clone().requires_grad_() for t in case.leaves()]
    with use_backend(backend):
        y = masked_layer_norm(x, weight, bias, case.widths, EPS)
        return y.detach(), *torch.autograd.grad(y, leaves, case.dy)


def sliced(case: Case, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The oracle: torch's own layer norm on each group's slice, computed in `dtype`."""
    x, weight, bias = (t.detach().to(dtype).requires_grad_() for t in case.leaves())
    parts = []
    for part, width in zip(x.chunk(len(case.widths)), case.widths.tolist(), strict=True):
        active = part[..., :width]
        if width:
            active = F.layer_norm(active, (width,), weight[:width], bias[:width], EPS)
        parts.append(F.pad(active, (0, x.shape[-1] - width)))
    y = torch.cat(parts)
    return y.detach(), *torch.autograd.grad(y, (x, weight, bias), case.dy.to(dtype))


def inactive(case: Case) -> Tensor:
    """Mask of x's columns beyond their group's width, (B, ..., C)."""
    repeats = case.x.shape[0] // len(case.widths)
    width_B = case.widths.repeat_interleave(repeats)
    columns = torch.arange(case.x.shape[-1], device=case.x.device)
    beyond_BC = columns >= width_B[:, None]
    return beyond_BC.reshape(
        case.x.shape[0], *[1] * (case.x.dim() - 2), case.x.shape[-1]
    ).expand_as(case.x)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("shape", "widths"), SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_outputs_and_gradients_equal_the_sliced_layer_norm(backend, device, shape, widths, dtype):
    case = make(shape, widths, dtype, device)
    truth, theirs = sliced(case, torch.float64), sliced(case, dtype)
    for name, ours, true, their in zip(
        ("y", "dx", "dweight", "dbias"), run(case, backend), truth, theirs, strict=True
    ):
        assert ours.dtype == (dtype if name in ("y", "dx") else case.weight.dtype)
        assert ours.shape == true.shape
        error = (ours.double() - true).abs()
        norm = torch.linalg.vector_norm(true).clamp(1e-30)
        assert torch.linalg.vector_norm(error) / norm < TOLERANCE[dtype], name
        if dtype == torch.float64:
            continue  # the oracle itself: nothing left to compare with
        # No worse than twice what torch loses in the same storage type (parameter gradients are
        # sums in float32 here, so torch's loss bounds them too).
        rounded = true.to(dtype)
        grain = 2 * ((rounded + 0.3) - 0.3 - rounded).abs().max()
        assert error.max() <= 2 * (their.double() - true).abs().max() + grain.double(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("shape", "widths"), SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_inactive_memory_is_never_used_and_comes_out_zero(backend, device, shape, widths, dtype):
    case = make(shape, widths, dtype, device)
    clean = run(case, backend)
    beyond = inactive(case)
    never = torch.arange(shape[-1], device=device) >= max(widths)
    case.x[beyond] = torch.nan
    case.dy[beyond] = torch.nan
    case.weight[never] = torch.nan
    case.bias[never] = torch.nan
    # In this mode torch.empty hands out NaN, so output that is not written shows as well.
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        poisoned = run(case, backend)
    finally:
        torch.use_deterministic_algorithms(before)
    for ours, expected in zip(poisoned, clean, strict=True):
        assert torch.equal(ours, expected)
    y, dx, dweight, dbias = poisoned
    for zeros in (y[beyond], dx[beyond], dweight[never], dbias[never]):
        assert zeros.count_nonzero() == 0


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_the_same_input_gives_the_same_bits(backend, device):
    case = make((4, 65, 40), (40, 23), device=device)
    for first, second in zip(run(case, backend), run(case, backend), strict=True):
        assert torch.equal(first, second)


def test_bits_do_not_depend_on_the_number_of_threads():
    case = make((8, 129, 40), (40, 23))  # large enough that the C++ backend shares it out
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        try:
            results.append(run(case, "cpp"))
        finally:
            torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_a_large_mean_does_not_cancel(backend, device):
    case = make((4, 3, 40), (40, 23), device=device, shift=1000.0)
    y, truth = run(case, backend)[0], sliced(case, torch.float64)[0]
    error = torch.linalg.vector_norm(y - truth) / torch.linalg.vector_norm(truth)
    assert error < 1e-3  # E[x^2] - E[x]^2 is off by 0.7 here


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_strided_inputs_give_the_same_result(backend, device):
    case = make((4, 3, 40), (40, 23), device=device)
    expected = run(case, backend)
    case.x = case.x.transpose(0, 1).contiguous().transpose(0, 1)
    case.dy = case.dy.transpose(1, 2).contiguous().transpose(1, 2)
    case.weight = torch.stack([case.weight] * 2, -1)[:, 0]
    for ours, plain in zip(run(case, backend), expected, strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_an_empty_batch_has_zero_gradients(backend, device):
    case = make((0, 3, 40), (40, 23), device=device)
    y, dx, dweight, dbias = run(case, backend)
    assert y.shape == dx.shape == (0, 3, 40)
    assert dweight.count_nonzero() == 0 and dbias.count_nonzero() == 0


@pytest.mark.parametrize("function", [reference, masked_layer_norm], ids=["reference", "op"])
def test_gradients_equal_finite_differences(function):
    case = make((4, 2, 7), (7, 3), torch.float64)
    leaves = [t.requires_grad_() for t in case.leaves()]
    assert torch.autograd.gradcheck(lambda *t: function(*t, case.widths, EPS), leaves)


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_the_registration_holds_what_torch_asks_of_an_op(backend):
    case = make((4, 3, 40), (40, 23))
    if why := reasons(OP, backend, (case.x,)):
        pytest.skip("; ".join(why))
    forward = torch.ops.vitresnas.masked_layer_norm.default
    backward = torch.ops.vitresnas.masked_layer_norm_backward.default
    arguments = (*case.leaves(), case.widths, EPS)
    with use_backend(backend):
        torch.library.opcheck(forward, arguments)
        _, mean, rstd = forward(*arguments)
        torch.library.opcheck(backward, (case.dy, case.x, mean, rstd, case.weight, case.widths))


def test_it_compiles_as_one_graph_with_the_same_result():
    case = make((4, 3, 40), (40, 23))
    compiled = torch.compile(masked_layer_norm, fullgraph=True, backend="aot_eager")
    results = []
    for function in (masked_layer_norm, compiled):
        x, weight, bias = leaves = [t.detach().clone().requires_grad_() for t in case.leaves()]
        y = function(x, weight, bias, case.widths, EPS)
        results.append((y.detach(), *torch.autograd.grad(y, leaves, case.dy)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_without_gradients_the_result_is_the_same():
    case = make((4, 3, 40), (40, 23))
    with torch.no_grad():
        y = masked_layer_norm(*case.leaves(), case.widths, EPS)
    assert torch.equal(y, masked_layer_norm(case.x.requires_grad_(), case.weight, case.bias,
                                            case.widths, EPS))  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": torch.zeros(4, 3, 40, dtype=torch.int32)}, "floating type"),
        ({"weight": torch.zeros(39)}, r"shape \(40,\)"),
        ({"bias": torch.zeros(40, dtype=torch.float64)}, "weight and bias must both be"),
        ({"widths": torch.tensor([40, 23])}, "int32"),
        ({"widths": torch.tensor([40, 23, 7], dtype=torch.int32)}, "divide the batch"),
        ({"widths": torch.tensor([41, 23], dtype=torch.int32)}, "width 41 does not lie within"),
        ({"widths": torch.tensor([-1, 23], dtype=torch.int32)}, "width -1 does not lie within"),
        ({"bias": torch.zeros(40, device="meta")}, "on one device"),
    ],
)
def test_wrong_inputs_are_named_in_one_sentence(changes, words):
    case = make((4, 3, 40), (40, 23))
    for name, value in changes.items():
        setattr(case, name, value)
    with pytest.raises(InputError, match=words) as raised:
        masked_layer_norm(*case.leaves(), case.widths)
    assert "\n" not in str(raised.value) and "(4, 3, 40)" in str(raised.value)


@pytest.mark.skipif(native.missing() is not None, reason=f"vitresnas._C is {native.missing()}")
def test_the_compiled_kernel_answers_wrong_input_with_a_code_not_a_crash():
    case = make((4, 3, 40), (40, 41))
    with pytest.raises(InputError, match=r"masked_layer_norm\(x \(4, 3, 40\) float32.*width"):
        _forward_cpp(*case.leaves(), case.widths, EPS)
    stats = torch.zeros(4, 3)
    with pytest.raises(InputError, match=r"masked_layer_norm_backward.*width"):
        _backward_cpp(case.dy, case.x, stats, stats, case.weight, case.widths)
    odd = make((3, 1, 40), (40, 40))
    with pytest.raises(InputError, match="multiple of the groups"):
        _forward_cpp(*odd.leaves(), odd.widths, EPS)
