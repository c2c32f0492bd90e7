"""Variable-head attention on every backend against softmax attention of the slices, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from tests.ops.rules import WITH_CUDA, active, check_close, torch_empty_is_nan
from vitresnas.errors import BackendError, InputError
from vitresnas.latency.cores import threads
from vitresnas.ops import native
from vitresnas.ops.dispatch import choose, disagreement, reasons, use_backend
from vitresnas.ops.variable_attention import OP, reference, variable_attention

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@dataclass(frozen=True)
class Sizes:
    images: int
    tokens: int
    head_dim: int
    most: int
    heads: tuple[int, ...]
    scale: float | None = None


# The three stages; two prefix tokens; one key; off every vector; a group skipped; one group; more
# keys than a panel holds; a head dimension that is no multiple of 16.
SIZES = [
    Sizes(2, 17, 64, 3, (3, 1)),
    Sizes(2, 65, 48, 2, (2, 1)),
    Sizes(2, 257, 32, 2, (1, 2)),
    Sizes(4, 18, 64, 2, (0, 2)),
    Sizes(3, 21, 40, 2, (1,), scale=0.3),
    Sizes(1, 33, 24, 1, (1,), scale=-0.2),
    Sizes(2, 1, 8, 3, (3, 1)),
    Sizes(2, 2, 20, 3, (2, 1)),
    Sizes(1, 64, 16, 1, (1,)),
    Sizes(1, 290, 32, 1, (1,)),
]


@dataclass(frozen=True)
class Case:
    qkv: Tensor
    dout: Tensor
    heads: Tensor
    sizes: Sizes

    def kept(self, x_BTX: Tensor, segments: int = 1, to: int = 1) -> Tensor:
        """Where the columns of live heads are; `to=16`: with the zeros behind them."""
        widths = [live * self.sizes.head_dim for live in self.sizes.heads]
        return active(x_BTX, widths, segments, to)


def make(sizes: Sizes, dtype=torch.float32, device="cpu") -> Case:
    generator = torch.Generator().manual_seed(3)
    columns = sizes.most * sizes.head_dim

    def draw(last):
        x = torch.randn(sizes.images, sizes.tokens, last, generator=generator, dtype=torch.float64)
        return x.to(device, dtype)

    heads = torch.tensor(sizes.heads, dtype=torch.int32, device=device)
    return Case(draw(3 * columns), draw(columns), heads, sizes)


def run(case: Case, backend: str) -> tuple[Tensor, Tensor]:
    """out and dqkv by one backend, or a skip that says why it cannot run."""
    view = case.qkv.unflatten(-1, (3, -1, case.sizes.head_dim))
    if why := reasons(OP, backend, (view, case.heads)):
        pytest.skip(f"{backend} cannot run here: {'; '.join(why)}")
    qkv = case.qkv.detach().clone().requires_grad_()
    with use_backend(backend):
        out = variable_attention(qkv, case.heads, case.sizes.head_dim, scale=case.sizes.scale)
        (dqkv,) = torch.autograd.grad(out, qkv, case.dout)
    return out.detach(), dqkv


def settled_zero(case: Case, out: Tensor, dqkv: Tensor) -> tuple[Tensor, Tensor]:
    """Both with zeros in the columns that are unspecified, and only there."""
    return (
        torch.where(case.kept(out, to=16), out, 0),
        torch.where(case.kept(dqkv, 3, to=16), dqkv, 0),
    )


def sliced(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The oracle: softmax attention of each group's live heads, computed in `dtype`."""
    sizes = case.sizes
    qkv = case.qkv.detach().clone().to(dtype).requires_grad_()
    scale = sizes.head_dim**-0.5 if sizes.scale is None else sizes.scale
    parts = []
    for part, live in zip(qkv.chunk(len(sizes.heads)), sizes.heads, strict=True):
        q, k, v = (
            t[:, :, :live].transpose(1, 2)
            for t in part.unflatten(-1, (3, sizes.most, sizes.head_dim)).unbind(2)
        )
        p = torch.softmax(scale * (q @ k.mT), -1)
        out = (p @ v).transpose(1, 2).flatten(2)
        parts.append(torch.nn.functional.pad(out, (0, (sizes.most - live) * sizes.head_dim)))
    out = torch.cat(parts)
    (dqkv,) = torch.autograd.grad(out, qkv, case.dout.to(dtype))
    return out.detach(), dqkv


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_output_and_gradient_equal_attention_of_the_slices(backend, device, sizes, dtype):
    case = make(sizes, dtype, device)
    results = run(case, backend), sliced(case, torch.float64), sliced(case, dtype)
    for name, ours, truth, plain in zip(("out", "dqkv"), *results, strict=True):
        keep = case.kept(ours, 1 if name == "out" else 3)
        assert ours.dtype == dtype
        # With one key the scores' gradient is 0: plain softmax finds it, p recomputed may not.
        theirs = plain[keep] if sizes.tokens > 1 else None
        check_close(name, ours[keep], truth[keep], theirs, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_inactive_memory_is_never_used_and_pads_are_zero(backend, device, sizes, dtype):
    case = make(sizes, dtype, device)
    clean = settled_zero(case, *run(case, backend))
    poison = torch.tensor(torch.nan, dtype=dtype, device=device)
    poisoned = replace(
        case,
        qkv=torch.where(case.kept(case.qkv, 3), case.qkv, poison),
        dout=torch.where(case.kept(case.dout), case.dout, poison),
    )
    with torch_empty_is_nan():
        results = settled_zero(case, *run(poisoned, backend))
    for ours, expected, segments in zip(results, clean, (1, 3), strict=True):
        assert torch.isfinite(ours).all()
        assert torch.equal(ours, expected)
        pad = case.kept(ours, segments, to=16) & ~case.kept(ours, segments)
        assert ours[pad].count_nonzero() == 0


@pytest.mark.parametrize("sizes", SIZES[:3], ids=str)
@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_the_same_input_gives_the_same_bits(backend, device, sizes):
    case = make(sizes, device=device)
    first, second = (settled_zero(case, *run(case, backend)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_bits_do_not_depend_on_the_number_of_threads():
    case = make(Sizes(8, 65, 48, 3, (3, 2)))  # large enough that the C++ backend shares it out
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(settled_zero(case, *run(case, "cpp")))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_permuted_groups_give_permuted_results(backend, device):
    case = make(Sizes(6, 17, 64, 3, (3, 1, 2)), device=device)
    turned = replace(case, qkv=case.qkv.roll(2, 0), dout=case.dout.roll(2, 0),
                     heads=case.heads.roll(1))  # fmt: skip
    expected = settled_zero(case, *run(case, backend))
    turned = replace(turned, sizes=replace(case.sizes, heads=tuple(turned.heads.tolist())))
    results = settled_zero(turned, *run(turned, backend))
    for ours, plain in zip(results, expected, strict=True):
        assert torch.equal(ours, plain.roll(2, 0))


@pytest.mark.parametrize("large", [30.0, 1000.0])
@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_large_scores_neither_overflow_nor_lose_the_answer(backend, device, large):
    case = make(Sizes(2, 17, 64, 2, (2, 1), scale=large), torch.float64, device)
    case = replace(case, qkv=(case.qkv * 4).round() / 4)  # products are exact in float32
    low = replace(case, qkv=case.qkv.float(), dout=case.dout.float())
    out, truth = run(low, backend)[0], sliced(case, torch.float64)[0]
    keep = case.kept(out)
    assert torch.isfinite(out[keep]).all()
    error = torch.linalg.vector_norm((out - truth)[keep]) / torch.linalg.vector_norm(truth)
    assert error < 1e-3


@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_strided_inputs_give_the_same_result(backend, device):
    case = make(SIZES[0], device=device)
    expected = settled_zero(case, *run(case, backend))
    turned = replace(case, qkv=case.qkv.transpose(0, 1).contiguous().transpose(0, 1),
                     dout=case.dout.transpose(1, 2).contiguous().transpose(1, 2))  # fmt: skip
    results = settled_zero(case, *run(turned, backend))
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize("sizes", [Sizes(0, 17, 32, 2, (2, 1)), Sizes(2, 17, 32, 2, (0, 0)),
                                   Sizes(2, 0, 32, 2, (2, 1))], ids=str)  # fmt: skip
@pytest.mark.parametrize(("backend", "device"), WITH_CUDA)
def test_nothing_to_do_is_fine(backend, device, sizes):
    out, dqkv = run(make(sizes, device=device), backend)
    assert out.shape == (sizes.images, sizes.tokens, 64) and dqkv.shape == (*out.shape[:2], 192)


def test_gradients_equal_finite_differences():
    case = make(Sizes(2, 5, 3, 2, (2, 1)), torch.float64)
    qkv = case.qkv.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reference(x, case.heads, 3), (qkv,))
    if native.missing() is None:

        def live(x):  # what is beyond must not matter, in either direction
            x = torch.where(case.kept(x, 3), x, 0)
            with use_backend("cpp"):
                return torch.where(case.kept(case.dout), variable_attention(x, case.heads, 3), 0)

        assert torch.autograd.gradcheck(live, (qkv,))


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_the_registration_holds_what_torch_asks_of_an_op(backend):
    case = make(Sizes(2, 17, 32, 2, (2, 2)))
    if why := reasons(OP, backend, (case.qkv.unflatten(-1, (3, 2, 32)), case.heads)):
        pytest.skip("; ".join(why))
    forward = torch.ops.vitresnas.variable_attention.default
    backward = torch.ops.vitresnas.variable_attention_backward.default
    arguments = case.qkv, case.heads, 32, 0.2
    with use_backend(backend):
        torch.library.opcheck(forward, arguments)
        out, lse = forward(*arguments)
        torch.library.opcheck(backward, (case.dout, case.qkv, out, lse, case.heads, 32, 0.2))


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_the_logarithm_of_the_sum_is_saved(backend):
    case = make(Sizes(2, 17, 32, 2, (2, 1)))
    if why := reasons(OP, backend, (case.qkv.unflatten(-1, (3, 2, 32)), case.heads)):
        pytest.skip("; ".join(why))
    with use_backend(backend):
        _, lse = torch.ops.vitresnas.variable_attention(case.qkv, case.heads, 32, 0.2)
    q, k, _ = case.qkv.double().unflatten(-1, (3, 2, 32)).permute(2, 0, 3, 1, 4)
    truth = torch.logsumexp(0.2 * q @ k.mT, -1)
    assert lse.shape == (2, 2, 17) and lse.dtype == torch.float32 and lse.is_contiguous()
    assert (lse[0] - truth[0]).abs().max() < 1e-5 and (lse[1, 0] - truth[1, 0]).abs().max() < 1e-5


def test_it_compiles_as_one_graph_with_the_same_result():
    case = make(Sizes(2, 17, 32, 2, (2, 1)))
    compiled = torch.compile(variable_attention, fullgraph=True, backend="aot_eager")
    results = []
    for function in (variable_attention, compiled):
        qkv = case.qkv.clone().requires_grad_()
        out = function(qkv, case.heads, 32)
        grad = torch.autograd.grad(out, qkv, case.dout)
        results.append(settled_zero(case, out.detach(), *grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_without_gradients_the_result_is_the_same():
    case = make(Sizes(2, 17, 32, 2, (2, 2)))
    with torch.no_grad():
        out = variable_attention(case.qkv, case.heads, 32)
    assert torch.equal(out, variable_attention(case.qkv.requires_grad_(), case.heads, 32))


@pytest.mark.skipif(native.missing() is not None, reason=f"vitresnas._C is {native.missing()}")
def test_the_compiled_backend_passes_the_check_at_first_use_and_is_chosen():
    case = make(Sizes(2, 17, 32, 2, (2, 2)))
    cpp = next(backend for backend in OP.backends if backend.name == "cpp")
    assert disagreement(OP, cpp, torch.device("cpu")) == ()
    view = case.qkv.unflatten(-1, (3, 2, 32))
    assert choose(OP, (view, case.heads)).name == "cpp"
    assert choose(OP, (view.half(), case.heads)).name == "reference"


@pytest.mark.parametrize(("tokens", "head_dim", "words"), [(18, 64, "tokens"), (197, 48, "tokens"),
                                                           (65, 40, "head dim")])  # fmt: skip
def test_shapes_that_triton_has_no_kernel_for_go_to_another_backend(tokens, head_dim, words):
    case = make(Sizes(1, tokens, head_dim, 1, (1,)))
    view = case.qkv.unflatten(-1, (3, 1, head_dim))
    why = " ".join(reasons(OP, "triton", (view, case.heads)))
    assert words in why or "is not installed" in why or "GPU" in why
    assert choose(OP, (view, case.heads)).name in ("cpp", "reference")
    with use_backend("triton"), pytest.raises(BackendError):
        variable_attention(case.qkv, case.heads, head_dim)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qkv": torch.zeros(2, 17, 192, dtype=torch.int32)}, "floating type"),
        ({"qkv": torch.zeros(2, 192)}, r"\(B, T, 3\*H\*D\)"),
        ({"qkv": torch.zeros(2, 17, 190)}, "three times"),
        ({"heads": torch.tensor([2, 1])}, "int32"),
        ({"heads": torch.tensor([2, 1, 1], dtype=torch.int32)}, "divide the batch"),
        ({"heads": torch.tensor([3, 1], dtype=torch.int32)}, "3 heads do not lie within the 2"),
        ({"heads": torch.tensor([-1, 1], dtype=torch.int32)}, "-1 heads do not lie within"),
        ({"heads": torch.zeros(2, dtype=torch.int32, device="meta")}, "on one device"),
    ],
)
def test_wrong_inputs_are_named_in_one_sentence(changes, words):
    case = replace(make(Sizes(2, 17, 32, 2, (2, 1))), **changes)
    with pytest.raises(InputError, match=words) as raised:
        variable_attention(case.qkv, case.heads, 32)
    assert "\n" not in str(raised.value) and str(tuple(case.qkv.shape)) in str(raised.value)


@pytest.mark.skipif(native.missing() is not None, reason=f"vitresnas._C is {native.missing()}")
def test_the_compiled_kernel_answers_wrong_input_with_a_code_not_a_crash():
    case = make(Sizes(2, 17, 32, 2, (2, 1)))
    cpp = next(backend for backend in OP.backends if backend.name == "cpp")
    with pytest.raises(InputError, match=r"variable_attention\(qkv \(2, 17, 192\) float32.*width"):
        cpp.forward(case.qkv, case.heads + 1, 32, 0.2)
    out, lse = case.dout, torch.zeros(2, 2, 17)
    with pytest.raises(InputError, match=r"variable_attention_backward.*width"):
        cpp.backward(case.dout, case.qkv, out, lse, case.heads + 1, 32, 0.2)
    with pytest.raises(InputError, match="multiple of the groups"):
        cpp.forward(case.qkv[:1], case.heads, 32, 0.2)
