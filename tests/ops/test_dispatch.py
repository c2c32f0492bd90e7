"""Which backend runs, and what is said when one cannot."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vitresnas.errors import BackendError, InputError
from vitresnas.files import write_json
from vitresnas.ops import OPS, dispatch, native
from vitresnas.ops.dispatch import (
    BACKENDS,
    Backend,
    choose,
    disagreement,
    find,
    machine_reasons,
    reasons,
    use_backend,
)
from vitresnas.ops.proven import RESULTS, proven

OP = find("masked_layer_norm")
X = torch.zeros(2, 1, 16)
CPU = torch.device("cpu")
BUILT = native.missing() is None


@pytest.mark.parametrize("name", OPS)
def test_every_listed_op_ends_with_a_reference_that_always_runs(name):
    op = find(name)
    assert op.name == name
    assert op.backends[-1].name == "reference"
    assert {backend.name for backend in op.backends} <= set(BACKENDS)
    assert reasons(op, "reference") == ()


def test_on_the_cpu_the_compiled_backend_is_first_and_the_interpreter_never(monkeypatch):
    monkeypatch.delenv("VITRESNAS_BACKEND", raising=False)
    assert choose(OP, (X,)).name == ("cpp" if BUILT else "reference")


def test_a_dtype_without_a_kernel_falls_to_the_reference():
    assert choose(OP, (X.half(),)).name == "reference"


def test_a_block_decides_by_name_and_gives_the_choice_back(monkeypatch):
    monkeypatch.setenv("VITRESNAS_BACKEND", "reference")
    with use_backend("triton"):
        assert reasons(OP, "triton", (X,)) or choose(OP, (X,)).name == "triton"
        with use_backend("reference"):
            assert choose(OP, (X,)).name == "reference"
    assert choose(OP, (X,)).name == "reference"


def test_the_environment_decides_by_name(monkeypatch):
    monkeypatch.setenv("VITRESNAS_BACKEND", "reference")
    assert choose(OP, (X,)).name == "reference"
    monkeypatch.setenv("VITRESNAS_BACKEND", "")
    assert choose(OP, (X,)).name == ("cpp" if BUILT else "reference")
    monkeypatch.setenv("VITRESNAS_BACKEND", "fast")
    with pytest.raises(BackendError, match='there is no backend "fast": use cuda, triton, cpp'):
        choose(OP, (X,))


def test_a_named_backend_that_cannot_run_lists_its_reasons():
    with use_backend("cuda"), pytest.raises(BackendError) as raised:
        choose(OP, (X,))
    assert 'backend "cuda" cannot run masked_layer_norm' in str(raised.value)
    if BUILT:
        with use_backend("cpp"), pytest.raises(BackendError, match="float16"):
            choose(OP, (X.half(),))


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "reference"])
def test_every_reason_says_how_to_mend_it(name):
    device = "cuda" if name == "cpp" else "cpu"
    for reason in machine_reasons(name, device):
        assert any(
            verb in reason for verb in ("install", "move", "run it on", "on the cpu only")
        ), reason


def wrong_forward(*arguments):
    y, mean, rstd = OP.backends[-1].forward(*arguments)
    return y * 1.01, mean, rstd


def failing_forward(*arguments):
    raise RuntimeError("no kernel image is available")


def test_a_kernel_that_disagrees_with_the_reference_steps_aside_with_a_warning():
    truth = OP.backends[-1]
    wrong = Backend("triton", wrong_forward, truth.backward)
    with pytest.warns(UserWarning, match="is not used: it disagrees with the reference on cpu"):
        assert "disagrees" in disagreement(OP, wrong, CPU)[0]
    failing = dataclasses.replace(wrong, forward=failing_forward)
    with pytest.warns(UserWarning, match="no kernel image"):
        assert "failed" in disagreement(OP, failing, CPU)[0]
    assert disagreement(OP, dataclasses.replace(truth, name="triton"), CPU) == ()


def test_only_a_committed_passing_result_of_that_architecture_proves_a_kernel(tmp_path):
    def commit(device, architecture, *passed, complete=(OP.name,)):
        rows = [
            {"op": OP.name, "backend": "triton", "direction": direction, "passed": one}
            for direction, one in zip(("forward", "backward"), passed, strict=False)
        ]
        environment = {"architecture": architecture}
        payload = {"environment": environment, "complete": list(complete), "rows": rows}
        write_json(tmp_path / device / "kernels.json", "bench", payload)
        proven.cache_clear()

    def ask(architecture="sm_90", backend="triton"):
        return proven(OP.name, backend, architecture, tmp_path)

    assert not ask()
    commit("h100", "sm_90", True, False)
    assert not ask()
    commit("h100", "sm_90", True)
    assert not ask()
    commit("h100", "sm_90", True, True, complete=())  # killed, or out of time
    assert not ask()
    commit("h100", "sm_90", True, True)
    assert ask()
    commit("h200", "sm_90", True, False)
    assert not ask()
    commit("h200", "sm_90", True, True)
    assert ask()
    assert not ask("sm_80")
    assert not ask(backend="cuda")
    (tmp_path / "h200" / "kernels.json").unlink()
    (tmp_path / "h100" / "kernels.json").write_text("not JSON")
    proven.cache_clear()
    assert not ask()


def test_results_are_looked_for_where_the_benchmarks_commit_them():
    assert RESULTS.parent.name == "bench" and (RESULTS.parent / "kernels.py").exists()


def test_status_codes_become_sentences():
    native.check(0, "op", x=X)
    for code, words in ((1, "float32, float64 or bfloat16"), (2, "width"), (9, "code 9")):
        with pytest.raises(InputError, match=words) as raised:
            native.check(code, "masked_layer_norm", x=X)
        assert "masked_layer_norm(x (2, 1, 16) float32)" in str(raised.value)


def test_an_unproven_gpu_kernel_is_taken_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (99, 0))
    monkeypatch.setattr(dispatch, "disagreement", lambda *arguments: ())
    kernel = Backend("cuda", lambda: None, lambda: None)
    monkeypatch.delenv("VITRESNAS_UNPROVEN", raising=False)
    (doubt,) = dispatch.doubts(OP, kernel, torch.device("cuda"))
    assert "no committed passing result for sm_990" in doubt
    monkeypatch.setenv("VITRESNAS_UNPROVEN", "1")
    assert dispatch.doubts(OP, kernel, torch.device("cuda")) == ()
