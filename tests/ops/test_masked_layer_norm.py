"""Masked LayerNorm on every backend against layer normalisation of the slices, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops.rules import WITH_CUDA, active, check_close, settled, torch_empty_is_nan
from vitresnas.errors import BackendError, InputError
from vitresnas.latency.cores import threads
from vitresnas.ops import native
from vitresnas.ops.dispatch import choose, reasons, use_backend
from vitresnas.ops.masked_layer_norm import (
    OP,
    masked_layer_norm,
    masked_layer_norm_residual,
    reference,
)
from vitresnas.ops.masked_layer_norm_native import backward_cpp, forward_cpp

EPS = 1e-6
# Of x (the residual stream) and of y.
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float32),
]
# (B, ..., C) and one width per group: off every tile grid, empty, one group, two dimensions.
SHAPES = [
    ((4, 3, 40), (40, 23)),
    ((4, 5, 40), (7, 0)),
    ((3, 17, 40), (23,)),
    ((6, 2, 1, 64), (64, 48, 16)),
    ((2, 33), (33, 32)),
    ((2, 5, 300), (257, 300)),
    ((4, 7, 512), (400, 512)),
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


def make(shape, widths, dtype=torch.float32, device="cpu", shift=0.0, inner=None) -> Case:
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
        dy.to(device, inner or dtype),
    )


def can(backend: str, case: Case) -> None:
    """A skip that says why, where the backend cannot run."""
    if why := reasons(OP, backend, (case.x, case.dy)):
        pytest.skip(f"{backend} cannot run here: {'; '.join(why)}")


def run(case: Case, backend: str, padded: bool = False) -> tuple[Tensor, ...]:
    """y, dx, dweight, dbias by one backend."""
    can(backend, case)
    x, weight, bias = leaves = [t.detach().clone().requires_grad_() for t in case.leaves()]
    with use_backend(backend):
        y = masked_layer_norm(x, weight, bias, case.widths, EPS, dtype=case.dy.dtype, padded=padded)
        return y.detach(), *torch.autograd.grad(y, leaves, case.dy)


def sliced(case: Case, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The oracle: torch's own layer norm on each group's slice, computed in `dtype`."""
    x, weight, bias = (t.detach().to(dtype).requires_grad_() for t in case.leaves())
    parts = []
    for part, width in zip(x.chunk(len(case.widths)), case.widths.tolist(), strict=True):
        columns = part[..., :width]
        if width:
            columns = F.layer_norm(columns, (width,), weight[:width], bias[:width], EPS)
        parts.append(F.pad(columns, (0, x.shape[-1] - width)))
    y = torch.cat(parts)
    gradients = torch.autograd.grad(
        y,
        (x, weight, bias),
        case.dy.to(dtype),
        materialize_grads=True,  # all groups may be empty
    )
    return y.detach(), *gradients


@pytest.mark.parametrize(("dtype", "inner"), DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "widths"), SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_outputs_and_gradients_equal_the_sliced_layer_norm(
    backend, device, shape, widths, dtype, inner
):
    case = make(shape, widths, dtype, device, inner=inner)
    coarse = inner if dtype == torch.float32 else dtype
    truth, theirs = sliced(case, torch.float64), sliced(case, coarse)
    for name, ours, true, their in zip(
        ("y", "dx", "dweight", "dbias"), run(case, backend), truth, theirs, strict=True
    ):
        assert ours.dtype == {"y": inner, "dx": dtype}.get(name, case.weight.dtype)
        # Parameter gradients are sums in float32 here, so torch's loss bounds them too.
        check_close(name, ours, true, their, coarse)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("shape", "widths"), SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_inactive_memory_is_never_used_and_comes_out_zero(
    backend, device, shape, widths, dtype, padded
):
    case = make(shape, widths, dtype, device)
    clean = run(case, backend, padded)
    counts = active(case.x, widths)
    unit = active(case.x, widths, to=16) if padded else torch.ones_like(counts)
    never = torch.arange(shape[-1], device=device) >= max(widths)
    case.x[~counts] = torch.nan
    case.dy[~counts] = torch.nan
    case.weight[never] = torch.nan
    case.bias[never] = torch.nan
    with torch_empty_is_nan():
        poisoned = run(case, backend, padded)
    for ours, expected in zip(poisoned[:2], clean[:2], strict=True):
        assert torch.equal(ours[counts], expected[counts])
        assert ours[unit & ~counts].count_nonzero() == 0
        if backend != "reference":
            assert ours[~unit].isnan().all()  # what nobody asked for was not written
    for ours, expected in zip(poisoned[2:], clean[2:], strict=True):
        assert torch.equal(ours, expected) and ours[never].count_nonzero() == 0


@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_the_same_input_gives_the_same_bits(backend, device):
    case = make((4, 65, 40), (40, 23), device=device)
    for first, second in zip(run(case, backend), run(case, backend), strict=True):
        assert torch.equal(first, second)


@pytest.mark.skipif(native.missing() is not None, reason="not compiled")
def test_torch_is_taken_where_it_is_faster_and_the_choice_can_be_overruled(monkeypatch):
    monkeypatch.delenv("VITRESNAS_BACKEND", raising=False)
    full, mixed = (torch.tensor(w, dtype=torch.int32) for w in ([64, 64], [64, 40]))
    x = torch.randn(4, 5, 64)
    taken = [choose(OP, (x, x, w)).name for x in (x, x.bfloat16()) for w in (full, mixed)]
    assert taken == ["reference", "cpp", "cpp", "cpp"]
    with use_backend("cpp"):
        assert choose(OP, (x, x, full)).name == "cpp"


def test_bits_do_not_depend_on_the_number_of_threads():
    case = make((8, 129, 40), (40, 23))  # large enough that the C++ backend shares it out
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(run(case, "cpp"))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_a_large_mean_does_not_cancel(backend, device):
    case = make((4, 3, 40), (40, 23), device=device, shift=1000.0)
    y, truth = run(case, backend)[0], sliced(case, torch.float64)[0]
    error = torch.linalg.vector_norm(y - truth) / torch.linalg.vector_norm(truth)
    assert error < 1e-3  # E[x^2] - E[x]^2 is off by 0.7 here


@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_strided_inputs_give_the_same_result(backend, device):
    case = make((4, 3, 40), (40, 23), device=device)
    expected = run(case, backend)
    case.x = case.x.transpose(0, 1).contiguous().transpose(0, 1)
    case.dy = case.dy.transpose(1, 2).contiguous().transpose(1, 2)
    case.weight = torch.stack([case.weight] * 2, -1)[:, 0]
    for ours, plain in zip(run(case, backend), expected, strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
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
    can(backend, case)
    forward = torch.ops.vitresnas.masked_layer_norm.default
    backward = torch.ops.vitresnas.masked_layer_norm_backward.default
    arguments = (*case.leaves(), case.widths, EPS)
    skips = torch.tensor([40, 40], dtype=torch.int32)
    with use_backend(backend):
        torch.library.opcheck(forward, arguments)
        torch.library.opcheck(forward, (*arguments, torch.bfloat16))
        _, mean, rstd = forward(*arguments)
        saved = (case.dy, case.x, mean, rstd, case.weight, case.widths)
        torch.library.opcheck(backward, saved)
        torch.library.opcheck(backward, (*saved, case.x, skips))


def both_ways(x, weight, bias, widths):
    y, again = masked_layer_norm_residual(x, weight, bias, widths, widths, EPS)
    return y + masked_layer_norm(again, weight, bias, widths, EPS)


@pytest.mark.parametrize("function", [masked_layer_norm, both_ways], ids=["op", "residual"])
def test_it_compiles_as_one_graph_with_the_same_result(function):
    case = make((4, 3, 40), (40, 23))
    if function is both_ways:  # what a padded result leaves unspecified cannot be compared
        case.widths.fill_(40)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    results = []
    for one in (function, compiled):
        x, weight, bias = leaves = [t.detach().clone().requires_grad_() for t in case.leaves()]
        y = one(x, weight, bias, case.widths)
        results.append((y.detach(), *torch.autograd.grad(y, leaves, case.dy)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_permuted_groups_give_permuted_results(backend, device):
    case = make((6, 5, 40), (40, 7, 23), device=device)
    y, dx, *_ = run(case, backend)

    def turn(x):
        return torch.cat(list(x.chunk(3))[::-1])

    case.x, case.dy, case.widths = turn(case.x), turn(case.dy), case.widths.flip(0)
    turned = run(case, backend)
    assert torch.equal(turned[0], turn(y)) and torch.equal(turned[1], turn(dx))


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
        ({"dy": torch.zeros((), dtype=torch.float64)}, "dtype torch.float64 must be"),
        ({"weight": torch.zeros(39)}, r"shape \(40,\)"),
        ({"bias": torch.zeros(40, dtype=torch.float64)}, "weight and bias must both be"),
        ({"widths": torch.tensor([40, 23])}, "int32"),
        ({"widths": torch.tensor([40, 0, 23, 0], dtype=torch.int32)[::2]}, "contiguous"),
        ({"widths": torch.tensor([40, 23, 7], dtype=torch.int32)}, "divide the batch"),
        ({"widths": torch.tensor([41, 23], dtype=torch.int32)}, "width 41 does not lie within"),
        ({"widths": torch.tensor([-1, 23], dtype=torch.int32)}, "width -1 does not lie within"),
        ({"bias": torch.zeros(40, device="meta")}, "on one device"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_inputs_are_named_in_one_sentence(changes, words):
    case = make((4, 3, 40), (40, 23))
    for name, value in changes.items():
        setattr(case, name, value)
    with pytest.raises(InputError, match=words) as raised:
        masked_layer_norm(*case.leaves(), case.widths, dtype=case.dy.dtype)
    assert "\n" not in str(raised.value) and "(4, 3, 40)" in str(raised.value)


@pytest.mark.skipif(native.missing() is not None, reason=f"vitresnas._C is {native.missing()}")
def test_the_compiled_kernel_answers_wrong_input_with_a_code_not_a_crash():
    case = make((4, 3, 40), (40, 41))
    with pytest.raises(InputError, match=r"masked_layer_norm\(x \(4, 3, 40\) float32.*width"):
        forward_cpp(*case.leaves(), case.widths, EPS)
    stats = torch.zeros(4, 3)
    with pytest.raises(InputError, match=r"masked_layer_norm_backward.*width"):
        backward_cpp(case.dy, case.x, stats, stats, case.weight, case.widths)
    odd = make((3, 1, 40), (40, 40))
    with pytest.raises(InputError, match="multiple of the groups"):
        forward_cpp(*odd.leaves(), odd.widths, EPS)


@pytest.mark.skipif(native.missing() is not None, reason=f"vitresnas._C is {native.missing()}")
def test_a_launch_that_fails_is_told_and_leaves_nothing_behind():
    module = native.module()
    if not module.has_cuda or torch.cuda.is_available():
        pytest.skip("needs a build with CUDA on a machine without a GPU")
    arguments = (0, 0, *[0] * 7, 4, 40, 2, EPS, False, 0)
    for _ in range(2):
        code = module.masked_layer_norm_forward_cuda(*arguments)
        with pytest.raises(BackendError, match=r"masked_layer_norm\(x \(4, 40\).*CUDA error"):
            native.check(code, "masked_layer_norm", x=torch.zeros(4, 40))
    assert module.masked_layer_norm_forward_cuda(1, *arguments[1:]) == 1  # float64: no kernel
    assert module.masked_layer_norm_forward_cuda(*arguments[:10], 36, *arguments[11:]) == 3


def residual_run(case: Case, skips: Tensor, again: Tensor, backend: str) -> tuple[Tensor, ...]:
    """y, dx, dweight, dbias where `again` is the gradient that comes back along the stream."""
    can(backend, case)
    x, weight, bias = leaves = [t.detach().clone().requires_grad_() for t in case.leaves()]
    with use_backend(backend):
        y, passed = masked_layer_norm_residual(
            x, weight, bias, case.widths, skips, EPS, dtype=case.dy.dtype
        )
        assert passed.data_ptr() == x.data_ptr()
        return y.detach(), *torch.autograd.grad((y, passed), leaves, (case.dy, again))


@pytest.mark.parametrize(("dtype", "inner"), DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "widths", "skips"),
    [
        ((4, 3, 40), (0, 23), (23, 23)),
        ((2, 5, 33), (33, 7), (33, 33)),
        ((4, 7, 512), (0, 0), (400, 512)),
        ((3, 17, 96), (40,), (83,)),
    ],
    ids=str,
)
@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_the_residual_gradient_is_added_where_dx_is_stored(
    backend, device, shape, widths, skips, dtype, inner
):
    case = make(shape, widths, dtype, device, inner=inner)
    skip = torch.tensor(skips, dtype=torch.int32, device=device)
    again = settled(case.x.roll(1, 1) * 0.7, skips)
    clean = residual_run(case, skip, again, backend)
    counts, passes = active(case.x, widths), active(case.x, skips)
    reach = active(case.x, skips, to=16)
    _, dx, *parameters = sliced(case, torch.float64)
    check_close("dx", torch.where(passes, clean[1], 0), dx + again.double(), None, dtype)
    for ours, truth in zip(clean[2:], parameters, strict=True):
        check_close("parameters", ours, truth, None, dtype)

    # Nothing beyond is read or, in the result, written; of a skipped group y and dy not at all.
    case.x[~counts] = torch.nan
    case.dy[~counts] = torch.nan
    with torch_empty_is_nan():
        y, dx, *parameters = residual_run(case, skip, settled(again, skips, torch.nan), backend)
    assert torch.equal(y[counts], clean[0][counts])
    assert torch.equal(dx[passes], clean[1][passes])
    assert dx[reach & ~passes].count_nonzero() == 0
    if backend != "reference":
        assert dx[~reach].isnan().all()
    assert all(torch.equal(a, b) for a, b in zip(parameters, clean[2:], strict=True))


def test_the_residual_form_checks_its_widths():
    case = make((4, 3, 40), (40, 23))
    skips = torch.tensor([40, 22], dtype=torch.int32)
    with pytest.raises(InputError, match="skip width 22 does not lie between the width 23"):
        masked_layer_norm_residual(*case.leaves(), case.widths, skips)
    with pytest.raises(InputError, match="skip_widths must be a contiguous int32"):
        masked_layer_norm_residual(*case.leaves(), case.widths, skips[:1])
