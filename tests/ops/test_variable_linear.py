"""The variable-width linear and MLP against each group's slice alone, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops.rules import BACKENDS, active, check_close, settled, torch_empty_is_nan
from vitresnas.errors import InputError
from vitresnas.latency.cores import threads
from vitresnas.ops import variable_linear_reference as plain
from vitresnas.ops.dispatch import reasons, use_backend
from vitresnas.ops.variable_linear import OP, variable_linear, variable_linear_residual
from vitresnas.ops.variable_mlp import reference as mlp_reference
from vitresnas.ops.variable_mlp import variable_mlp

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
# (B, ...) of x, K, N, widths in, widths out, segments: off every tile grid, skipped, one group.
SHAPES = [
    ((4, 3), 40, 56, (40, 23), (56, 17), 1),
    ((4, 5), 40, 72, (17, 40), (24, 9), 3),
    ((3, 7), 40, 96, (40, 0, 16), (16, 30, 32), 3),
    ((4, 2), 33, 20, (33, 20), (0, 20), 1),
    ((3, 1, 5), 64, 48, (48,), (16,), 1),
    ((2,), 40, 10, (40, 33), (10, 10), 1),
]
KINDS = ["linear", "residual", "mlp"]


@dataclass
class Case:
    """Inputs of one call; the MLP's hidden width is the first weight's rows."""

    kind: str
    leaves: dict[str, Tensor]  # what gets a gradient, in the order of the arguments
    widths: Any  # two int32 tensors, in and out (of an MLP: hidden)
    segments: int
    scale: Tensor | None
    dy: Tensor

    @property
    def outputs(self) -> Tensor:
        """The widths of y."""
        return self.widths[0] if self.kind == "mlp" else self.widths[1]

    def call(self, leaves: Sequence[Tensor]) -> Tensor:
        if self.kind == "linear":
            x, weight, bias = leaves
            return variable_linear(x, weight, bias, *self.widths, segments=self.segments)
        *arguments, residual = leaves
        function: Any = variable_mlp if self.kind == "mlp" else variable_linear_residual
        y: Tensor = function(*arguments, *self.widths, residual, self.scale)
        return y


def make(kind, shape, dtype=torch.float32, device="cpu", stream=None, scaled=True, seed=3) -> Case:
    """`stream`: dtype of residual and y, dtype of x by default. Memory that may not count is 0."""
    rows, inputs, outputs, widths_in, widths_out, segments = shape
    generator = torch.Generator().manual_seed(seed)
    sums, stream = plain.accumulator(dtype), stream or dtype

    def draw(*size, to=sums):
        return torch.randn(size, generator=generator, dtype=torch.float64).to(device, to)

    segments = segments if kind == "linear" else 1
    x = settled(draw(*rows, inputs, to=dtype), widths_in)
    leaves = {"x": x, "weight1": draw(outputs, inputs) / inputs**0.5, "bias1": draw(outputs)}
    ends, columns = (widths_out, outputs)
    if kind == "mlp":
        leaves |= {"weight2": draw(inputs, outputs) / outputs**0.5, "bias2": draw(inputs)}
        ends, columns = (widths_in, inputs)
    if kind != "linear":
        leaves["residual"] = settled(draw(*rows, columns, to=stream), ends)
    scale = draw(rows[0]).abs() if scaled and kind != "linear" else None
    if scale is not None:
        scale[:1] = 0  # an image whose branch is dropped
    dy = settled(draw(*rows, columns, to=stream), ends, segments=segments)
    table = tuple(
        torch.tensor(w, dtype=torch.int32, device=device) for w in (widths_in, widths_out)
    )
    return Case(kind, leaves, table, segments, scale, dy)


def run(case: Case, backend: str) -> dict[str, Tensor]:
    """y and every gradient by one backend, or a skip that says why it cannot run."""
    if why := reasons(OP, backend, (case.leaves["x"],)):
        pytest.skip(f"{backend} cannot run here: {'; '.join(why)}")
    leaves = [t.detach().clone().requires_grad_() for t in case.leaves.values()]
    with use_backend(backend):
        y = case.call(leaves)
        gradients = torch.autograd.grad(y, leaves, case.dy)
    return {"y": y.detach(), **dict(zip(case.leaves, gradients, strict=True))}


def sliced(case: Case, dtype: torch.dtype, compute: torch.dtype | None = None) -> dict[str, Tensor]:
    """The oracle: each group alone, on its slices of the weights, zero where nothing counts.

    dtype: of the residual stream and of parameters; compute: of products.
    """
    compute = compute or dtype
    leaves = {k: t.detach().to(dtype).requires_grad_() for k, t in case.leaves.items()}
    groups, parts = len(case.widths[0]), []
    scales = [None] * groups if case.scale is None else case.scale.to(dtype).chunk(groups)
    residuals = leaves["residual"].chunk(groups) if "residual" in leaves else [None] * groups
    for x, residual, scale, k, n in zip(
        leaves["x"].chunk(groups),
        residuals,
        scales,
        *(w.tolist() for w in case.widths),
        strict=True,
    ):
        end, inner = (k, n) if case.kind == "mlp" else (n, k)
        shown = None if residual is None else residual[..., :end]
        if inner and case.kind == "mlp":
            hidden = F.gelu(slice_linear(x, leaves, "1", k, n, 1, compute).to(dtype))
            branch = slice_linear(hidden, leaves, "2", n, k, 1, compute).to(dtype)
        elif inner:
            branch = slice_linear(x, leaves, "1", k, n, case.segments, compute).to(dtype)
        else:
            branch = x.new_zeros(*x.shape[:-1], case.segments * end)
        if shown is not None:
            factor = 1 if scale is None else scale.view(-1, *[1] * (x.dim() - 1))
            branch = shown + factor * branch
        room = case.dy.shape[-1] // case.segments
        branch = branch.unflatten(-1, (case.segments, end))
        parts.append(F.pad(branch, (0, room - end)).flatten(-2))
    y = torch.cat(parts)
    gradients = torch.autograd.grad(
        y, list(leaves.values()), case.dy.to(dtype), allow_unused=True, materialize_grads=True
    )
    return {"y": y.detach(), **dict(zip(leaves, gradients, strict=True))}


def slice_linear(x, leaves, which, k, n, segments, compute) -> Tensor:
    weight, bias = leaves["weight" + which], leaves["bias" + which]
    weight = weight.unflatten(0, (segments, -1))[:, :n, :k].flatten(0, 1)
    bias = bias.unflatten(0, (segments, -1))[:, :n].flatten()
    return F.linear(x[..., :k].to(compute), weight.to(compute), bias.to(compute))


def counted(case: Case, results: dict[str, Tensor], to: int = 1) -> dict[str, Tensor]:
    """The results with zero where they are unspecified (beyond the next multiple of `to`)."""
    k = case.widths[0].tolist()
    live = [
        0 if case.kind == "linear" and not inner else end
        for inner, end in zip(k, case.outputs.tolist(), strict=True)
    ]
    masks = {
        "y": active(results["y"], live, case.segments, to),
        "x": active(results["x"], k, to=to),
    }
    if "residual" in results:
        masks["residual"] = active(results["residual"], case.outputs.tolist(), to=to)
    return {
        name: torch.where(masks[name], value, 0) if name in masks else value
        for name, value in results.items()
    }


def agree(case: Case, backend: str, dtype: torch.dtype, stream: torch.dtype) -> None:
    truth = sliced(case, torch.float64)
    theirs = counted(case, sliced(case, torch.float32 if stream != dtype else dtype, dtype))
    for name, ours in counted(case, run(case, backend)).items():
        own = {"y": stream, "residual": stream, "x": dtype}
        assert ours.dtype == own.get(name, plain.accumulator(dtype)), name
        check_close(name, ours, counted(case, truth)[name], theirs[name], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_outputs_and_gradients_equal_each_group_alone(backend, device, kind, shape, dtype):
    agree(make(kind, fitting(kind, shape), dtype, device), backend, dtype, dtype)


def fitting(kind: str, shape):
    """Outputs of one segment are one width per group, whatever the shape's segments."""
    return shape if kind == "linear" else (*shape[:5], 1)


@pytest.mark.parametrize("kind", ["residual", "mlp"])
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_a_float32_stream_beside_bfloat16_products(backend, device, kind):
    case = make(kind, SHAPES[0], torch.bfloat16, device, stream=torch.float32)
    agree(case, backend, torch.bfloat16, torch.float32)


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_logits_may_be_float32(backend, device):
    case = make("linear", SHAPES[5], torch.bfloat16, device)
    with use_backend(backend):
        if why := reasons(OP, backend, (case.leaves["x"],)):
            pytest.skip("; ".join(why))
        x, weight, bias = case.leaves.values()
        y = variable_linear(x, weight, bias, *case.widths, dtype=torch.float32)
        half = variable_linear(x, weight, bias, *case.widths)
    assert y.dtype == torch.float32
    assert torch.allclose(y, half.float(), rtol=1e-2)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_memory_that_does_not_count_is_never_used(backend, device, kind, shape, dtype):
    shape = fitting(kind, shape)
    clean, case = (make(kind, shape, dtype, device) for _ in range(2))
    k, n = shape[3:5]
    poison_activations(case, k, shape[4])
    for which, (inner, outer) in {"1": (k, n), "2": (n, k)}.items():
        if f"weight{which}" in case.leaves:
            used = reached(case, which, inner, outer, to=16)
            case.leaves[f"weight{which}"][~used] = torch.nan
            case.leaves[f"bias{which}"][~used.any(1)] = torch.nan
    expected = run(clean, backend)
    with torch_empty_is_nan():
        found = run(case, backend)
    for (name, ours), plainly in zip(
        counted(case, found, to=16).items(), counted(case, expected, to=16).values(), strict=True
    ):
        assert torch.equal(ours, plainly), name
    for which, (inner, outer) in {"1": (k, n), "2": (n, k)}.items():
        if f"weight{which}" in case.leaves:
            used = reached(case, which, inner, outer)
            assert found[f"weight{which}"][~used].count_nonzero() == 0
            assert found[f"bias{which}"][~used.any(1)].count_nonzero() == 0


def poison_activations(case: Case, widths_in, widths_out) -> None:
    ends = widths_in if case.kind == "mlp" else widths_out
    case.leaves["x"] = settled(case.leaves["x"], widths_in, torch.nan)
    case.dy = settled(case.dy, ends, torch.nan, case.segments)
    if "residual" in case.leaves:
        case.leaves["residual"] = settled(case.leaves["residual"], ends, torch.nan)


def reached(case: Case, which: str, widths_in, widths_out, to: int = 1) -> Tensor:
    """True in the elements of the weight that some group uses."""
    weight = case.leaves[f"weight{which}"]
    used = torch.zeros_like(weight, dtype=torch.bool)
    for k, n in zip(widths_in, widths_out, strict=True):
        if k and n:
            k, n = (-(-w // to) * to for w in (k, n))
            used.unflatten(0, (case.segments, -1))[:, :n, :k] = True
    return used


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_the_same_input_gives_the_same_bits(backend, device, kind):
    case = make(kind, fitting(kind, SHAPES[1]), device=device)
    first, second = (counted(case, run(case, backend)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_the_number_of_threads(kind, dtype):
    shape = ((4, 300), 96, 192, (96, 80), (64, 48), 3 if kind == "linear" else 1)
    case, results = make(kind, shape, dtype), []
    for count in (1, 2, 3):
        with threads(count):
            results.append(counted(case, run(case, "cpp")))
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_a_batch_of_skipped_groups_passes_through_without_gradients(backend, device, kind):
    zeros, some = (0, 0), (33, 16)
    shape = ((4, 3), 40, 48, some if kind == "mlp" else zeros, zeros if kind == "mlp" else some, 1)
    case = make(kind, shape, device=device)
    found = counted(case, run(case, backend), to=16)
    for name, value in found.items():
        if name in ("y", "residual") and kind != "linear":
            assert torch.equal(value, case.leaves["residual"] if name == "y" else case.dy)
        else:
            assert value.count_nonzero() == 0, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_an_empty_batch_has_zero_gradients(backend, device, kind):
    found = run(make(kind, ((0, 3), 40, 56, (40, 23), (56, 17), 1), device=device), backend)
    assert found["y"].shape[:2] == (0, 3)
    assert all(found[name].count_nonzero() == 0 for name in found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_permuting_groups_permutes_outputs(backend, device, kind):
    case = make(kind, ((6, 3), 40, 48, (40, 23, 16), (16, 9, 33), 1), device=device)
    order = torch.tensor([2, 0, 1], device=device)

    def shuffle(t_BX: Tensor) -> Tensor:
        return t_BX.unflatten(0, (3, -1))[order].flatten(0, 1)

    other = replace(
        case,
        leaves={k: shuffle(t) if k in ("x", "residual") else t for k, t in case.leaves.items()},
        widths=tuple(w[order] for w in case.widths),
        scale=None if case.scale is None else shuffle(case.scale),
        dy=shuffle(case.dy),
    )
    ours, theirs = counted(case, run(case, backend)), counted(other, run(other, backend))
    for name in ours:
        if name in ("y", "x", "residual"):
            assert torch.equal(shuffle(ours[name]), theirs[name]), name
        else:
            assert torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("backend", ["reference", "cpp"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(backend, kind):
    shape = (
        ((2, 2), 5, 6, (5, 3), (2, 1), 3) if kind == "linear" else ((2, 2), 5, 6, (5, 3), (2, 6), 1)
    )
    case = make(kind, shape, torch.float64)
    if why := reasons(OP, backend, (case.leaves["x"],)):
        pytest.skip("; ".join(why))
    leaves = [t.requires_grad_() for t in case.leaves.values()]
    counts = active(case.dy, case.outputs.tolist(), case.segments)
    with use_backend(backend):
        assert torch.autograd.gradcheck(lambda *t: torch.where(counts, case.call(t), 0), leaves)


def test_the_plain_references_differentiate_to_the_same_gradients():
    linear = make("linear", SHAPES[1], torch.float64)
    mlp = make("mlp", fitting("mlp", SHAPES[0]), torch.float64)

    def plain_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return plain.reference(x, weight, bias, *linear.widths, segments=3)

    def plain_mlp(*leaves: Any) -> Tensor:
        function: Any = mlp_reference
        *arguments, residual = leaves
        y: Tensor = function(*arguments, *mlp.widths, residual, mlp.scale)
        return y

    pairs: list[tuple[Case, Callable[..., Tensor]]] = [(linear, plain_linear), (mlp, plain_mlp)]
    for case, function in pairs:
        leaves = [t.detach().requires_grad_() for t in case.leaves.values()]
        y = function(*leaves)
        gradients = torch.autograd.grad(y, leaves, case.dy)
        found = {"y": y.detach(), **dict(zip(case.leaves, gradients, strict=True))}
        truth = sliced(case, torch.float64)
        for name, value in found.items():
            check_close(name, value.detach(), truth[name], None, torch.float64)


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_the_registration_holds_what_torch_asks_of_an_op(backend):
    # Every column is within 16 of its group's width: what is unspecified could not be compared.
    case = make("residual", ((4, 3), 40, 56, (40, 33), (56, 50), 1))
    x, weight, bias, residual = case.leaves.values()
    if why := reasons(OP, backend, (x,)):
        pytest.skip("; ".join(why))
    forward = torch.ops.vitresnas.variable_linear.default
    backward = torch.ops.vitresnas.variable_linear_backward.default
    common, dtype = (x, weight, bias, *case.widths, 1), torch.float32
    with use_backend(backend):
        torch.library.opcheck(forward, (*common, False, False, residual, case.scale, dtype))
        torch.library.opcheck(forward, (*common, True, True, None, None, dtype))
        saved = (x, weight, *case.widths, 1)
        torch.library.opcheck(backward, (case.dy, *saved, None, case.scale))
        torch.library.opcheck(backward, (case.dy, *saved, torch.randn_like(x), None))


@pytest.mark.parametrize("kind", KINDS)
def test_it_compiles_as_one_graph_with_the_same_result(kind):
    case, results = make(kind, fitting(kind, SHAPES[1])), []
    for function in (case.call, torch.compile(case.call, fullgraph=True, backend="aot_eager")):
        leaves = [t.detach().clone().requires_grad_() for t in case.leaves.values()]
        y = function(leaves)
        gradients = torch.autograd.grad(y, leaves, case.dy)
        found = {"y": y.detach(), **dict(zip(case.leaves, gradients, strict=True))}
        results.append(counted(case, found))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_the_result_is_the_same(kind):
    case = make(kind, fitting(kind, SHAPES[1]))
    with torch.no_grad():
        y = case.call(list(case.leaves.values()))
    expected = run(case, "cpp" if not reasons(OP, "cpp", (y,)) else "reference")
    ours, theirs = (counted(case, {**expected, "y": value})["y"] for value in (y, expected["y"]))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_strided_inputs_give_the_same_result(backend, device):
    case = make("linear", SHAPES[0], device=device)
    expected = run(case, backend)
    case.leaves["x"] = case.leaves["x"].transpose(0, 1).contiguous().transpose(0, 1)
    case.dy = case.dy.transpose(1, 2).contiguous().transpose(1, 2)
    found = counted(case, run(case, backend))
    for name, value in counted(case, expected).items():
        assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": torch.zeros(4, 3, 40, dtype=torch.int32)}, "floating type"),
        ({"weight": torch.zeros(56, 39)}, r"shape \(N, 40\)"),
        ({"weight": torch.zeros(56, 40, dtype=torch.float16)}, "weight and bias must be"),
        ({"bias": torch.zeros(55)}, r"shape \(56,\)"),
        ({"segments": 3}, "segments 3 must divide"),
        ({"dtype": torch.bfloat16}, "not torch.bfloat16"),
        ({"widths_in": torch.tensor([40, 23])}, "int32"),
        ({"widths_in": torch.tensor([40, 23, 7], dtype=torch.int32)}, "divide the batch"),
        ({"widths_in": torch.tensor([41, 23], dtype=torch.int32)}, "widths_in 41 does not lie"),
        ({"widths_out": torch.tensor([-1, 23], dtype=torch.int32)}, "widths_out -1 does not lie"),
        ({"bias": torch.zeros(56, device="meta")}, "on one device"),
    ],
)
def test_wrong_inputs_are_named_in_one_sentence(changes, words):
    case = make("linear", SHAPES[0])
    names = ("widths_in", "widths_out")
    arguments: Any = dict(zip(("x", "weight", "bias"), case.leaves.values(), strict=True))
    arguments |= dict(zip(names, case.widths, strict=True)) | changes
    with pytest.raises(InputError, match=words) as raised:
        variable_linear(**arguments)
    assert "\n" not in str(raised.value) and "(56, " in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"residual": torch.zeros(4, 3, 55)}, r"residual must have shape \(4, 3, 56\)"),
        ({"residual": torch.zeros(4, 3, 56, dtype=torch.float16)}, "not torch.float16"),
        ({"scale": torch.zeros(3)}, "one factor per image"),
    ],
)
def test_wrong_residuals_are_named_in_one_sentence(changes, words):
    case = make("residual", SHAPES[0])
    x, weight, bias, residual = case.leaves.values()
    keywords = {"residual": residual, "scale": case.scale, **changes}
    with pytest.raises(InputError, match=words):
        variable_linear_residual(x, weight, bias, *case.widths, **keywords)


def test_the_mlp_names_the_layer_that_does_not_fit():
    case = make("mlp", fitting("mlp", SHAPES[0]))
    case.leaves["weight2"] = torch.zeros(40, 55)
    with pytest.raises(InputError, match=r"variable_mlp \(second layer\).*\(N, 56\)"):
        case.call(list(case.leaves.values()))
