"""Variable-width patch embedding on every backend against a convolution by slices, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from vitresnas.ops.dispatch import reasons, use_backend
from vitresnas.ops.variable_patch_embedding import OP, reference, variable_patch_embedding

# (dtype of the tokens, dtype of the trunk)
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.bfloat16),
]
# (B, M, S, p, P, C) and widths: odd patches, no prefix, two, one group, a group of nothing.
SHAPES = [
    ((4, 5, 3, 2, 1, 40), (40, 23)),
    ((2, 3, 2, 7, 2, 24), (24,)),
    ((6, 4, 4, 1, 0, 33), (33, 1, 16)),
    ((4, 5, 3, 2, 1, 40), (0, 17)),
    ((2, 24, 4, 4, 1, 96), (96, 80)),
]
NAMES = ("trunk", "weight", "bias", "prefix_tokens", "position")


@dataclass
class Case:
    trunk: Tensor
    weight: Tensor
    bias: Tensor
    prefix_tokens: Tensor
    position: Tensor
    widths: Tensor
    dtokens: Tensor
    dtype: torch.dtype

    def leaves(self) -> list[Tensor]:
        return [getattr(self, name) for name in NAMES]

    def arguments(self, leaves=None) -> Any:
        return (*(leaves or self.leaves()), self.widths)


@pytest.fixture(autouse=True)
def _few_steps_in_the_interpreter(monkeypatch):
    few_steps_in_the_interpreter(monkeypatch, "variable_patch_embedding")


def make(shape, widths, dtype=torch.float32, compute=None, device="cpu", fill=0.0) -> Case:
    generator = torch.Generator().manual_seed(3)
    (batch, mid, side, patch, prefix, channels), compute = shape, compute or dtype
    parameters = torch.float64 if compute == torch.float64 else torch.float32

    def draw(*size, dtype=parameters):
        drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        # Values of the compute type, so that a cast of parameters to it loses nothing.
        return drawn.to(compute).to(device, dtype)

    tokens = prefix + side * side
    return Case(
        draw(batch, mid, side * patch, side * patch, dtype=compute),
        draw(channels, mid, patch, patch) / 4,
        draw(channels),
        draw(1, prefix, channels),
        draw(1, tokens, channels),
        torch.tensor(widths, dtype=torch.int32, device=device),
        settled(draw(batch, tokens, channels, dtype=dtype), widths, fill),
        dtype,
    )


def named(tokens: Tensor, gradients: Sequence[Tensor]) -> dict[str, Tensor]:
    found = {f"d{name}": g for name, g in zip(NAMES, gradients, strict=True)}
    return {"tokens": tokens.detach(), **found}


def run(case: Case, backend: str) -> dict[str, Tensor]:
    """The tokens and all gradients by one backend, or a skip that says why it cannot run."""
    if why := reasons(OP, backend, (case.trunk, case.dtokens)):
        pytest.skip(f"{backend} cannot run here: {'; '.join(why)}")
    leaves = [t.detach().clone().requires_grad_() for t in case.leaves()]
    with use_backend(backend):
        tokens = variable_patch_embedding(*case.arguments(leaves), dtype=case.dtype)
        return named(tokens, torch.autograd.grad(tokens, leaves, case.dtokens))


def sliced(case: Case, kind: torch.dtype) -> dict[str, Tensor]:
    """The oracle: plain torch on the slices of each group, computed in `kind`."""
    leaves = [t.detach().to(kind).requires_grad_() for t in case.leaves()]
    trunk, weight, bias, prefix_tokens, position = leaves
    outs = []
    for part, n in zip(trunk.chunk(len(case.widths)), case.widths.tolist(), strict=True):
        out = trunk.new_zeros(len(part), *position.shape[1:])
        if n:
            image = F.conv2d(part, weight[:n], bias[:n], stride=weight.shape[-1])
            prefix = prefix_tokens[..., :n].expand(len(part), -1, -1)
            path = torch.cat((prefix, image.flatten(2).transpose(1, 2)), 1) + position[..., :n]
            out = F.pad(path, (0, len(weight) - n))
        outs.append(out)
    tokens = torch.cat(outs)
    dtokens = settled(case.dtokens, case.widths.tolist()).to(kind)
    gradients = torch.autograd.grad(tokens, leaves, dtokens)
    return named(tokens, gradients)


def counting(case: Case, name: str, value: Tensor, to: int = 1) -> Tensor:
    """Where values of the result `name` are promised."""
    if name == "tokens":
        return active(value, case.widths.tolist(), to=to)
    return torch.ones_like(value, dtype=torch.bool)


def assert_equal(case: Case, ours: dict[str, Tensor], others: dict[str, Tensor], to=1) -> None:
    """Bit for bit, where values are promised."""
    for name, value in ours.items():
        where = counting(case, name, value, to)
        assert torch.equal(value[where], others[name][where]), name


@pytest.mark.parametrize(("dtype", "compute"), DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "widths"), SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_outputs_and_gradients_equal_the_slices(backend, device, shape, widths, dtype, compute):
    case = make(shape, widths, dtype, compute, device)
    with torch_empty_is_nan():
        ours = run(case, backend)
    truth, plain = sliced(case, torch.float64), sliced(case, compute)
    for name, value in ours.items():
        storage = {"tokens": dtype, "dtrunk": compute}.get(name, case.weight.dtype)
        assert value.dtype == storage and value.shape == truth[name].shape
        where = counting(case, name, value)
        check_close(name, value[where], truth[name][where], plain[name][where], compute)
        pad = counting(case, name, value, to=16) & ~where
        assert value[pad].count_nonzero() == 0, name
        if name != "tokens":
            assert value[truth[name] == 0].count_nonzero() == 0, name


@pytest.mark.parametrize(("shape", "widths"), SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_memory_that_does_not_count_is_never_used(backend, device, shape, widths):
    clean = make(shape, widths, device=device)
    case = make(shape, widths, device=device, fill=torch.nan)
    rows = -(-max(widths) // 16) * 16
    for name in NAMES[1:]:
        poisoned = getattr(case, name).clone()
        (poisoned if name == "weight" else poisoned.transpose(0, -1))[rows:] = torch.nan
        setattr(case, name, poisoned)
    expected = run(clean, backend)
    with torch_empty_is_nan():
        ours = run(case, backend)
    assert_equal(case, ours, expected, to=16)


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_the_same_input_gives_the_same_bits(backend, device):
    case = make((4, 5, 4, 3, 1, 40), (40, 23), device=device)
    assert_equal(case, run(case, backend), run(case, backend))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(dtype):
    case = make((8, 12, 8, 4, 1, 96), (96, 80), dtype)  # large enough to be shared out
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(run(case, "cpp"))
    for other in results[1:]:
        assert_equal(case, results[0], other)


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_permuting_groups_permutes_outputs(backend, device):
    case = make((4, 5, 3, 2, 1, 40), (40, 23), device=device)
    swapped = replace(
        case,
        trunk=case.trunk.roll(2, 0),
        dtokens=case.dtokens.roll(2, 0),
        widths=case.widths.flip(0),
    )
    ours, other = run(case, backend), run(swapped, backend)
    for name in ("tokens", "dtrunk"):
        where = counting(case, name, ours[name])
        assert torch.equal(ours[name][where], other[name].roll(2, 0)[where])


@pytest.mark.parametrize("backend", ["reference", "cpp", "triton"])
def test_the_memory_format_of_the_trunk_does_not_matter(backend):
    case = make((4, 5, 3, 2, 1, 40), (40, 23))
    last = replace(case, trunk=case.trunk.to(memory_format=torch.channels_last))
    ours, other = run(case, backend), run(last, backend)
    for name, value in ours.items():
        where = counting(case, name, value)
        torch.testing.assert_close(value[where], other[name][where])


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_groups_of_width_zero_give_no_gradients(backend, device):
    case = make((4, 5, 3, 2, 1, 40), (0, 0), device=device, fill=torch.nan)
    with torch_empty_is_nan():
        ours = run(case, backend)
    for name in NAMES:
        assert ours[f"d{name}"].count_nonzero() == 0, name


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_an_empty_batch_has_zero_gradients(backend, device):
    ours = run(make((0, 5, 3, 2, 1, 40), (40, 23), device=device), backend)
    assert ours["tokens"].shape == (0, 10, 40)
    for name in NAMES[1:]:
        assert ours[f"d{name}"].count_nonzero() == 0, name


def test_a_trunk_without_gradient_costs_none():
    case = make((4, 5, 3, 2, 1, 40), (40, 23))
    leaves = [case.trunk, *(t.requires_grad_() for t in case.leaves()[1:])]
    tokens = variable_patch_embedding(*case.arguments(leaves))
    assert tokens.dtype == case.position.dtype
    gradients = torch.autograd.grad(tokens, leaves[1:], case.dtokens)
    expected = list(run(case, "reference").values())[2:]
    for ours, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("backend", [None, "reference", "cpp"], ids=["plain", "reference", "cpp"])
def test_gradients_equal_finite_differences(backend):
    case = make((2, 2, 2, 2, 1, 6), (6, 3), torch.float64)
    leaves = [t.requires_grad_() for t in case.leaves()]

    def function(*leaves):
        if backend is None:
            tokens = reference(*case.arguments(leaves))
        else:
            with use_backend(backend):
                tokens = variable_patch_embedding(*case.arguments(leaves))
        return torch.where(active(tokens, case.widths.tolist()), tokens, 0)

    if backend and (why := reasons(OP, backend, (case.trunk, case.dtokens))):
        pytest.skip("; ".join(why))
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_the_registration_holds_what_torch_asks_of_an_op(backend):
    # Full widths: what lies beyond them differs from run to run.
    case = make((4, 5, 3, 2, 1, 32), (32, 32))
    if why := reasons(OP, backend, (case.trunk, case.dtokens)):
        pytest.skip("; ".join(why))
    with use_backend(backend):
        torch.library.opcheck(
            torch.ops.vitresnas.variable_patch_embedding.default,
            (*case.arguments(), torch.float32),
        )
        for need_trunk in (True, False):
            torch.library.opcheck(
                torch.ops.vitresnas.variable_patch_embedding_backward.default,
                (case.dtokens, case.trunk, case.weight, case.widths, 1, need_trunk),
            )


def test_it_compiles_as_one_graph_with_the_same_result():
    case = make((4, 5, 3, 2, 1, 40), (40, 23))
    compiled = torch.compile(variable_patch_embedding, fullgraph=True, backend="aot_eager")
    results = []
    for function in (variable_patch_embedding, compiled):
        leaves = [t.detach().clone().requires_grad_() for t in case.leaves()]
        tokens = function(*case.arguments(leaves))
        results.append(named(tokens, torch.autograd.grad(tokens, leaves, case.dtokens)))
    assert_equal(case, *results)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trunk": torch.zeros(4, 5, 6)}, r"trunk must be \(B, M, side, side\)"),
        ({"trunk": torch.zeros(4, 5, 7, 7)}, "side 7 of trunk must be a multiple of the patch 2"),
        ({"weight": torch.zeros(40, 4, 2, 2)}, r"weight must be \(C, 5, p, p\)"),
        ({"bias": torch.zeros(39)}, r"bias must be \(40,\)"),
        ({"position": torch.zeros(1, 9, 40)}, r"position_embedding must be \(1, 1 \+ 3\*3, 40\)"),
        ({"bias": torch.zeros(40, dtype=torch.float64)}, "parameters must be"),
        ({"dtype": torch.float64}, "tokens of torch.float64 cannot come from"),
        ({"widths": torch.tensor([40, 23])}, "int32"),
        ({"widths": torch.tensor([40, 23, 7], dtype=torch.int32)}, "divide the batch"),
        ({"widths": torch.tensor([41, 23], dtype=torch.int32)}, "width 41 does not lie within"),
        ({"bias": torch.zeros(40, device="meta")}, "on one device"),
    ],
)
def test_wrong_inputs_are_named_in_one_sentence(changes, words):
    case = replace(make((4, 5, 3, 2, 1, 40), (40, 23)), **changes)
    with pytest.raises(InputError, match=words) as raised:
        variable_patch_embedding(*case.arguments(), dtype=case.dtype)
    assert "\n" not in str(raised.value)


def test_autocast_around_an_op_changes_nothing_within():
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(size, generator=generator).requires_grad_()
        for size in ((4, 3, 8, 8), (12, 3, 2, 2), (12,), (1, 1, 12), (1, 17, 12))
    ]
    widths = torch.tensor([10, 7], dtype=torch.int32)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            trunk, weight, bias, prefix, position = leaves
            y = variable_patch_embedding(trunk, weight, bias, prefix, position, widths)
            loss = y[:2, :, :10].square().sum() + y[2:, :, :7].square().sum()
            results.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
