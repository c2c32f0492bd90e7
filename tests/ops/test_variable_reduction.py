"""Variable-width spatial reduction on every backend against torch on each group's slice, alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops.rules import (
    BACKENDS,
    active,
    check_close,
    few_steps_in_the_interpreter,
    settled,
    torch_empty_is_nan,
)
from vitresnas.errors import InputError
from vitresnas.latency.cores import threads
from vitresnas.ops import native, variable_reduction_cpu
from vitresnas.ops.dispatch import reasons, use_backend
from vitresnas.ops.variable_reduction import OP, reference, variable_reduction

# (dtype of x and out, dtype of y)
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.bfloat16),
]
# (B, grid, prefix, C, K), widths in, widths out: off every tile grid, one group, no prefix, skips.
SHAPES = [
    ((4, 4, 1, 40, 72), (40, 23), (72, 41)),
    ((4, 4, 2, 40, 40), (7, 40), (7, 40)),
    ((3, 2, 1, 24, 50), (24,), (33,)),
    ((3, 6, 0, 33, 35), (1, 33, 16), (35, 33, 16)),
    ((4, 4, 1, 40, 72), (0, 23), (72, 41)),
    ((2, 8, 1, 80, 96), (80,), (96,)),
]
NAMES = ("x", "y", "weight", "bias", "position", "prefix_weight", "prefix_bias")


@dataclass
class Case:
    x: Tensor
    y: Tensor
    weight: Tensor
    bias: Tensor
    position: Tensor
    prefix_weight: Tensor
    prefix_bias: Tensor
    widths_in: Tensor
    widths_out: Tensor
    dout: Tensor
    grid: int
    prefix: int

    def leaves(self) -> list[Tensor]:
        return [getattr(self, name) for name in NAMES]

    def arguments(self, leaves=None, *sizes: int) -> Any:
        return (*(leaves or self.leaves()), self.widths_in, self.widths_out, *sizes)

    def live(self) -> list[int]:
        pairs = zip(self.widths_in.tolist(), self.widths_out.tolist(), strict=True)
        return [n if k else 0 for k, n in pairs]


@pytest.fixture(autouse=True)
def _few_steps_in_the_interpreter(monkeypatch):
    few_steps_in_the_interpreter(monkeypatch, "variable_reduction")


def make(
    shape, widths_in, widths_out, dtype=torch.float32, compute=None, device="cpu", fill=0.0
) -> Case:
    generator = torch.Generator().manual_seed(3)
    compute = compute or dtype
    (batch, grid, prefix, channels, outputs), tokens = shape, shape[1] ** 2 // 4
    parameters = torch.float64 if compute == torch.float64 else torch.float32

    def draw(*size, dtype=parameters):
        drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        # Values of the compute type, so that a cast of parameters to it loses nothing.
        return drawn.to(compute).to(device, dtype)

    x = draw(batch, prefix + grid * grid, channels, dtype=dtype)
    y = draw(batch, prefix + grid * grid, channels, dtype=compute)
    dout = draw(batch, prefix + tokens, outputs, dtype=dtype)
    return Case(
        settled(x, widths_in, fill),
        settled(y, widths_in, fill),
        draw(outputs, channels, 3, 3) / 8,
        draw(outputs),
        draw(1, tokens, outputs),
        draw(outputs, channels) / 4,
        draw(outputs),
        torch.tensor(widths_in, dtype=torch.int32, device=device),
        torch.tensor(widths_out, dtype=torch.int32, device=device),
        settled(dout, widths_out, fill),
        grid,
        prefix,
    )


def named(out: Tensor, gradients: Sequence[Tensor]) -> dict[str, Tensor]:
    found = {f"d{name}": g for name, g in zip(NAMES, gradients, strict=True)}
    return {"out": out.detach(), **found}


def run(case: Case, backend: str) -> dict[str, Tensor]:
    """out and all gradients by one backend, or a skip that says why it cannot run."""
    if why := reasons(OP, backend, (case.x, case.y)):
        pytest.skip(f"{backend} cannot run here: {'; '.join(why)}")
    leaves = [t.detach().clone().requires_grad_() for t in case.leaves()]
    with use_backend(backend):
        out = variable_reduction(*case.arguments(leaves), grid=case.grid, prefix=case.prefix)
        return named(out, torch.autograd.grad(out, leaves, case.dout))


def sliced(case: Case, kind: torch.dtype) -> dict[str, Tensor]:
    """The oracle: plain torch on the slices of each group, computed in `kind`."""
    leaves = [t.detach().to(kind).requires_grad_() for t in case.leaves()]
    x, y, weight, bias, position, prefix_weight, prefix_bias = leaves
    size, outs = len(x) // len(case.widths_in), []
    for g, (k, n) in enumerate(zip(case.widths_in.tolist(), case.widths_out.tolist(), strict=True)):
        x_ENC, y_ENC = (t[g * size : (g + 1) * size, :, :k] for t in (x, y))
        half = case.grid // 2
        out = x.new_zeros(size, case.prefix + half * half, len(weight))
        if k:
            image = y_ENC[:, case.prefix :].transpose(1, 2).unflatten(2, (case.grid, case.grid))
            patches = F.conv2d(image, weight[:n, :k], bias[:n], stride=2, padding=1)
            patches = patches.flatten(2).transpose(1, 2) + position[..., :n]
            prefixes = F.linear(y_ENC[:, : case.prefix], prefix_weight[:n, :k], prefix_bias[:n])
            pooled = x_ENC[:, case.prefix :].unflatten(1, (half, 2, half, 2)).mean((2, 4))
            skip = torch.cat((x_ENC[:, : case.prefix], pooled.flatten(1, 2)), 1)
            path = torch.cat((prefixes, patches), 1) + F.pad(skip, (0, n - k))
            out = F.pad(path, (0, len(weight) - n))
        outs.append(out)
    out = torch.cat(outs)
    gradients = torch.autograd.grad(out, leaves, settled(case.dout, case.live()).to(kind))
    return named(out, gradients)


def counting(case: Case, name: str, value: Tensor, to: int = 1) -> Tensor:
    """Where values of the result `name` are promised."""
    if name == "out":
        return active(value, case.widths_out.tolist(), to=to)
    if name in ("dx", "dy"):
        return active(value, case.widths_in.tolist(), to=to)
    return torch.ones_like(value, dtype=torch.bool)


def assert_equal(case: Case, ours: dict[str, Tensor], others: dict[str, Tensor], to=1) -> None:
    """Bit for bit, where values are promised."""
    for name, value in ours.items():
        where = counting(case, name, value, to)
        assert torch.equal(value[where], others[name][where]), name


@pytest.mark.parametrize(("dtype", "compute"), DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "widths_in", "widths_out"), SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_outputs_and_gradients_equal_the_slices(
    backend, device, shape, widths_in, widths_out, dtype, compute
):
    case = make(shape, widths_in, widths_out, dtype, compute, device)
    with torch_empty_is_nan():
        ours = run(case, backend)
    truth, plain = sliced(case, torch.float64), sliced(case, compute)
    for name, value in ours.items():
        storage = {"out": dtype, "dx": dtype, "dy": compute}.get(name, case.weight.dtype)
        assert value.dtype == storage and value.shape == truth[name].shape
        where = counting(case, name, value)
        check_close(name, value[where], truth[name][where], plain[name][where], compute)
        pad = counting(case, name, value, to=16) & ~where
        assert value[pad].count_nonzero() == 0, name
        if name not in ("out", "dx", "dy"):
            assert value[truth[name] == 0].count_nonzero() == 0, name


@pytest.mark.parametrize(("shape", "widths_in", "widths_out"), SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_memory_that_does_not_count_is_never_used(backend, device, shape, widths_in, widths_out):
    clean = make(shape, widths_in, widths_out, device=device)
    case = make(shape, widths_in, widths_out, device=device, fill=torch.nan)
    rows, columns = (-(-max(w) // 16) * 16 for w in (widths_out, widths_in))
    for name in NAMES[2:]:
        poisoned = getattr(case, name).clone()
        if name in ("weight", "prefix_weight"):
            poisoned[rows:] = torch.nan
            poisoned[:, columns:] = torch.nan
        else:
            poisoned[..., rows:] = torch.nan
        setattr(case, name, poisoned)
    expected = run(clean, backend)
    with torch_empty_is_nan():
        ours = run(case, backend)
    assert_equal(case, ours, expected, to=16)


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_the_same_input_gives_the_same_bits(backend, device):
    case = make((4, 4, 1, 40, 72), (40, 23), (72, 41), device=device)
    assert_equal(case, run(case, backend), run(case, backend))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(dtype):
    case = make((8, 16, 1, 64, 96), (64, 41), (96, 80), dtype)  # large enough to be shared out
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(run(case, "cpp"))
    for other in results[1:]:
        assert_equal(case, results[0], other)


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_permuting_groups_permutes_outputs(backend, device):
    case = make((4, 4, 1, 40, 72), (40, 23), (72, 41), device=device)
    swapped = replace(
        case,
        **{n: getattr(case, n).roll(2, 0) for n in ("x", "y", "dout")},
        **{n: getattr(case, n).flip(0) for n in ("widths_in", "widths_out")},
    )
    ours, other = run(case, backend), run(swapped, backend)
    for name in ("out", "dx", "dy"):
        where = counting(case, name, ours[name])
        assert torch.equal(ours[name][where], other[name].roll(2, 0)[where])


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_a_skipped_batch_gives_zeros_and_no_gradients(backend, device):
    case = make((4, 4, 1, 40, 72), (0, 0), (72, 41), device=device)
    with torch_empty_is_nan():
        ours = run(case, backend)
    assert ours["out"][counting(case, "out", ours["out"], to=16)].count_nonzero() == 0
    for name in NAMES[2:]:
        assert ours[f"d{name}"].count_nonzero() == 0, name


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_an_empty_batch_has_zero_gradients(backend, device):
    ours = run(make((0, 4, 1, 40, 72), (40, 23), (72, 41), device=device), backend)
    assert ours["out"].shape == (0, 5, 72)
    for name in NAMES[2:]:
        assert ours[f"d{name}"].count_nonzero() == 0, name


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_the_memory_format_of_the_weight_does_not_matter(backend):
    case = make((4, 4, 1, 40, 72), (40, 23), (72, 41))
    last = replace(case, weight=case.weight.to(memory_format=torch.channels_last))
    assert_equal(case, run(case, backend), run(last, backend))


@pytest.mark.parametrize("backend", [None, "reference", "cpp"], ids=["plain", "reference", "cpp"])
def test_gradients_equal_finite_differences(backend):
    case = make((2, 4, 1, 4, 6), (4, 3), (6, 3), torch.float64)
    leaves = [t.requires_grad_() for t in case.leaves()]

    def function(*leaves):
        arguments = case.arguments(leaves)
        if backend is None:
            out = reference(*case.arguments(leaves, case.grid, case.prefix))
        else:
            with use_backend(backend):
                out = variable_reduction(*arguments, grid=case.grid, prefix=case.prefix)
        return torch.where(active(out, case.widths_out.tolist()), out, 0)

    if backend and (why := reasons(OP, backend, (case.x, case.y))):
        pytest.skip("; ".join(why))
    assert torch.autograd.gradcheck(function, leaves, fast_mode=backend is None)


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_the_registration_holds_what_torch_asks_of_an_op(backend):
    # Full widths: what lies beyond them differs from run to run.
    case = make((4, 4, 1, 32, 48), (32, 32), (48, 48))
    if why := reasons(OP, backend, (case.x, case.y)):
        pytest.skip("; ".join(why))
    weight = case.weight.to(memory_format=torch.channels_last)
    with use_backend(backend):
        torch.library.opcheck(
            torch.ops.vitresnas.variable_reduction.default,
            (*case.arguments(), case.grid, case.prefix),
        )
        torch.library.opcheck(
            torch.ops.vitresnas.variable_reduction_backward.default,
            (case.dout, case.y, weight, case.prefix_weight, case.widths_in, case.widths_out,
             case.grid, case.prefix),
        )  # fmt: skip


def test_it_compiles_as_one_graph_with_the_same_result():
    case = make((4, 4, 1, 40, 72), (40, 23), (72, 41))
    compiled = torch.compile(variable_reduction, fullgraph=True, backend="aot_eager")
    results = []
    for function in (variable_reduction, compiled):
        leaves = [t.detach().clone().requires_grad_() for t in case.leaves()]
        out = function(*case.arguments(leaves), grid=case.grid, prefix=case.prefix)
        results.append(named(out, torch.autograd.grad(out, leaves, case.dout)))
    assert_equal(case, *results)


@pytest.mark.parametrize("side", [2, 4, 6, 8, 14, 16])
def test_parity_classes_meet_every_tap_of_every_input_once(side):
    half = side // 2
    # Brute force: which (output, tap) read each input of a 3x3 stride-2 convolution with padding 1.
    readers: dict[tuple[int, int], set[tuple[int, int, int]]] = {
        (r, c): set() for r in range(side) for c in range(side)
    }
    for i in range(half):
        for j in range(half):
            for tap in range(9):
                at = (2 * i + tap // 3 - 1, 2 * j + tap % 3 - 1)
                if at in readers:
                    readers[at].add((i, j, tap))
    for (r, c), expected in readers.items():
        met = [
            (r // 2 + shift // 2, c // 2 + shift % 2, tap)
            for tap, shift in variable_reduction_cpu.taps_of(r % 2, c % 2)
        ]
        assert len(met) == len(set(met))
        assert {one for one in met if one[0] < half and one[1] < half} == expected


@pytest.mark.skipif(native.missing() is not None, reason=f"vitresnas._C is {native.missing()}")
@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
def test_the_compiled_row_map_equals_brute_force(side):
    token_at = native.module().token_at
    for stride in (1, 2):
        for i in range(-(-side // stride)):
            for j in range(-(-side // stride)):
                for down in (-1, 0, 1):
                    for right in (-1, 0, 1):
                        row, column = stride * i + down, stride * j + right
                        inside = 0 <= row < side and 0 <= column < side
                        expected = row * side + column if inside else -1
                        assert token_at(i, j, stride, down, right, side) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": torch.zeros(4, 18, 40)}, r"x must be \(B, 1 \+ 4\*4, C\)"),
        ({"y": torch.zeros(4, 17, 39)}, "y must have x's shape"),
        ({"x": torch.zeros(4, 17, 40, dtype=torch.float64)}, "x be torch.float32"),
        ({"y": torch.zeros(4, 17, 40, dtype=torch.int32)}, "y of a floating type"),
        ({"weight": torch.zeros(72, 40, 3, 1)}, r"convolution_weight must have shape \(72, 40, 3"),
        ({"bias": torch.zeros(71)}, r"convolution_bias must have shape \(72,\)"),
        ({"position": torch.zeros(1, 5, 72)}, r"position_embedding must have shape \(1, 4, 72\)"),
        ({"prefix_bias": torch.zeros(72, dtype=torch.float64)}, "parameters must be"),
        ({"widths_in": torch.tensor([40, 23])}, "int32"),
        ({"widths_in": torch.tensor([40], dtype=torch.int32)}, "as many widths in as out"),
        ({"widths_in": torch.tensor([41, 23], dtype=torch.int32)}, "widths 41 in and 72 out"),
        ({"widths_out": torch.tensor([72, 22], dtype=torch.int32)}, "widths 23 in and 22 out"),
        ({"grid": 3}, "grid 3 must be even"),
        ({"bias": torch.zeros(72, device="meta")}, "on one device"),
    ],
)
def test_wrong_inputs_are_named_in_one_sentence(changes, words):
    case = replace(make((4, 4, 1, 40, 72), (40, 23), (72, 41)), **changes)
    assert {field.name for field in fields(case)} >= set(changes)
    with pytest.raises(InputError, match=words) as raised:
        variable_reduction(*case.arguments(), grid=case.grid, prefix=case.prefix)
    assert "\n" not in str(raised.value)
