"""The CUDA attention kernels, run on emulated warps from their own sources, against float64.

What is emulated is the meaning of the instructions; what remains for a GPU is their speed, and that
the compiler and the hardware agree with the manual.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.ops.emulation import CSRC, Attention, EmulationError, build
from tests.ops.rules import check_close
from vitresnas.ops import native
from vitresnas.ops import variable_attention_cuda as cuda

NAN = float("nan")
SIZES = [(tokens, head_dim) for tokens, sizes in cuda.SIZES.items() for head_dim in sizes]
NATURAL = [(17, 64), (65, 48), (257, 32)]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build("variable_attention.cpp", tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def emulate(monkeypatch):
    """Puts an emulated library where the launcher looks for the compiled module."""

    def put(library, seed=0):
        attention = Attention(library, seed)
        monkeypatch.setattr(native, "module", lambda: attention)
        monkeypatch.setattr(native, "stream", lambda tensor: 0)
        monkeypatch.setattr(cuda, "_prepare", lambda device: None)
        return attention

    return put


@dataclass
class Case:
    qkv: Tensor  # (B, T, 3, H, D)
    dout: Tensor  # (B, T, H, D)
    heads: tuple[int, ...]

    @property
    def live_BH(self) -> Tensor:
        batch, _, _, heads, _ = self.qkv.shape
        width_B = torch.tensor(self.heads).repeat_interleave(batch // len(self.heads))
        return torch.arange(heads) < width_B[:, None]


def make(size, heads, storage=3, dtype=torch.bfloat16, batch=2, factor=1.0, fill=NAN) -> Case:
    generator = torch.Generator().manual_seed(5)
    tokens, head_dim = size
    qkv = factor * torch.randn(batch, tokens, 3, storage, head_dim, generator=generator)
    dout = torch.randn(batch, tokens, storage, head_dim, generator=generator)
    case = Case(qkv.to(dtype), dout.to(dtype), heads)
    case.qkv[(~case.live_BH)[:, None, None].expand(case.qkv.shape[:-1])] = fill
    case.dout[(~case.live_BH)[:, None].expand(case.dout.shape[:-1])] = fill
    return case


def run(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """out (B, T, H, D), lse (B, H, T) and dqkv (B, T, 3, H, D) through the launcher."""
    head_dim = case.qkv.shape[-1]
    heads = torch.tensor(case.heads, dtype=torch.int32)
    scale = head_dim**-0.5
    with pytest.MonkeyPatch.context() as patch:  # what nobody writes stays NaN
        patch.setattr(torch, "empty_like", lambda t: torch.full_like(t, NAN))
        patch.setattr(
            Tensor, "new_empty", lambda t, *shape, dtype=None: t.new_full(shape, NAN, dtype=dtype)
        )
        qkv, dout = case.qkv.flatten(2), case.dout.flatten(2)
        out, lse = cuda.forward(qkv, heads, head_dim, scale)
        dqkv = cuda.backward(dout, qkv, out, lse, heads, head_dim, scale)
    return out.view(case.dout.shape), lse, dqkv.view(case.qkv.shape)


def truth(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The same in plain torch, on every head (inactive ones zeroed), computed in `dtype`."""
    qkv = case.qkv.nan_to_num(0).to(dtype).requires_grad_()
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) * case.qkv.shape[-1] ** -0.5
    out = (scores.softmax(-1) @ v).transpose(1, 2)
    (dqkv,) = torch.autograd.grad(out, qkv, case.dout.nan_to_num(0).to(dtype))
    return out.detach(), scores.logsumexp(-1).detach(), dqkv


def check(case: Case, found: tuple[Tensor, Tensor, Tensor]) -> None:
    dtype, live_BH = case.qkv.dtype, case.live_BH
    parts = []
    for out, lse, dqkv in (found, truth(case, torch.float64), truth(case, dtype)):
        heads_first = [out.transpose(1, 2), lse, *dqkv.permute(2, 0, 3, 1, 4)]
        parts.append([t[live_BH] for t in heads_first])
    for name, ours, true, plain in zip(("out", "lse", "dq", "dk", "dv"), *parts, strict=True):
        if name == "lse":
            check_close(name, ours, true, None, torch.float32)
        else:
            check_close(name, ours, true, plain, dtype)
    out, lse, dqkv = found  # inactive heads are not written
    assert out.transpose(1, 2)[~live_BH].isnan().all() and lse[~live_BH].isnan().all()
    assert dqkv.permute(2, 0, 3, 1, 4)[:, ~live_BH].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_outputs_and_gradients_equal_attention_in_float64(library, emulate, size, dtype):
    emulate(library)
    storage, heads = (2, (2, 1)) if size[0] == 257 else (3, (3, 1))
    case = make(size, heads, storage, dtype)
    check(case, run(case))


@pytest.mark.parametrize("size", NATURAL, ids=str)
def test_matrix_loads_and_stores_meet_no_bank_conflict(library, emulate, size):
    attention = emulate(library)
    run(make(size, (1,), storage=1, batch=1))
    phases, wavefronts, products = attention.counters()
    assert phases > 0 and products > 0
    assert wavefronts == phases


@pytest.mark.parametrize("size", [(17, 64), (65, 48)], ids=str)
def test_the_bits_depend_neither_on_the_order_of_threads_nor_on_inactive_heads(
    library, emulate, size
):
    found = []
    for seed, fill in ((0, NAN), (1, NAN), (2, 7.0)):
        emulate(library, seed)
        found.append([t.nan_to_num(-1) for t in run(make(size, (2, 0, 3, 1), batch=4, fill=fill))])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_groups_are_independent_and_permuting_them_permutes_the_outputs(library, emulate):
    emulate(library)
    case = make((17, 32), (3, 1), batch=6)
    swapped = Case(case.qkv.roll(3, 0), case.dout.roll(3, 0), (1, 3))
    for there, back in zip(run(case), run(swapped), strict=True):
        assert torch.equal(there.nan_to_num(-1), back.roll(3, 0).nan_to_num(-1))


def test_a_batch_of_skipped_groups_writes_nothing(library, emulate):
    emulate(library)
    assert all(t.isnan().all() for t in run(make((65, 48), (0, 0))))


def test_no_images_are_no_work(library, emulate):
    emulate(library)
    out, _, dqkv = run(make((17, 48), (2,), batch=0))
    assert out.numel() == dqkv.numel() == 0


def test_saturated_softmax_stays_finite(library, emulate):
    emulate(library)
    case = make((65, 32), (1,), storage=1, batch=1, factor=30.0)
    out, _, dqkv = run(case)
    assert torch.isfinite(out).all() and torch.isfinite(dqkv).all()
    true = truth(case, torch.float64)[0]
    assert (out.double() - true).abs().max() <= 2**-8 * true.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "instead", "message"),
    [
        ("_forward.cuh", "    gpu::wait_copies<1>();\n", "", "race"),
        ("_forward.cuh", "<1>();\n    me.sync();", "<1>();", "race"),
        ("_backward.cuh", "free again\n        me.sync();", "free again\n", "race"),
        ("_backward.cuh", "<0>();\n    me.sync();", "<0>();", "race"),
        ("_tiles.cuh", "    gpu::sync_warp();\n    VITRESNAS_UNROLL\n    for (int n",
         "    for (int n", "race"),
        ("_tiles.cuh", "if (S::exists(strip, row))", "", "outside all tensors|twice"),
        ("_tiles.cuh", "S::writable(strip, place.row)", "place.row", "race|beyond|off by|twice"),
        ("_backward.cuh", "dp[n][i] = 0;", ";", "off by"),
    ],
)  # fmt: skip
def test_the_emulator_notices_what_it_promises_to_notice(
    emulate, tmp_path, file, line, instead, message
):
    broken = tmp_path / "csrc"
    shutil.copytree(CSRC, broken)
    path = broken / "cuda" / f"variable_attention{file}"
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, instead, 1))
    one = "-DVITRESNAS_SIZES(DIRECTION)=VITRESNAS_TRY(DIRECTION, 65, 48)"
    emulate(build("variable_attention.cpp", tmp_path, "-O1", "-Wno-error", one, csrc=broken))
    with pytest.raises((EmulationError, AssertionError), match=message):
        case = make((65, 48), (2, 1))
        check(case, run(case))
