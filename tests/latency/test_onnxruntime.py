"""ONNX Runtime: the same numbers as eager, a refusal where they are not, and a table by it."""

import sys

import pytest
import torch
from torch import nn

from vitresnas.errors import InputError
from vitresnas.latency import load_tables
from vitresnas.latency.__main__ import main
from vitresnas.latency.measure import time_interleaved
from vitresnas.latency.runtime import find_runtime, usable_runtime
from vitresnas.models import create_model
from vitresnas.models.pieces import build_piece, piece_input_shape

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_where_it_is_missing_the_command_that_installs_it_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in ("onnxruntime", "onnx", "onnxscript"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(InputError, match=r"needs onnxruntime, onnx.*pip install -e '\.\[onnx"):
        usable_runtime("onnxruntime", "cpu")
    options = ("--runtime", "onnxruntime", "--device", "cpu", "--out", str(tmp_path / "t.json"))
    assert main(options) == 2
    assert ".[onnx]" in capsys.readouterr().err


@pytest.mark.usefixtures("needs_onnx")
class TestInstalled:
    def prepare(self, module, x, operation=None):
        return usable_runtime("onnxruntime", "cpu").prepare(module, x, operation)

    def test_pieces_and_networks_compute_what_eager_does(self, small_space):
        pieces = {operation.kind: operation for operation in small_space.operations()}
        with torch.inference_mode():
            for operation in pieces.values():
                module = build_piece(operation).eval()
                x = torch.randn(piece_input_shape(operation, 2))
                call = self.prepare(module, x, operation)
                torch.testing.assert_close(call(), module(x), rtol=1e-4, atol=1e-4)
            network = create_model(small_space.largest).eval()
            call = self.prepare(network, IMAGES)
            torch.testing.assert_close(call(), network(IMAGES), rtol=1e-4, atol=1e-4)

    def test_a_call_reads_its_input_and_writes_its_output_in_place(self):
        x = torch.ones(4, 3)
        call = self.prepare(nn.ReLU(), x)
        first = call()
        x.fill_(2.0)
        assert call() is first and first.eq(2.0).all()

    def test_any_callable_is_exported(self):
        call = self.prepare(lambda images: images.mean() + 1.0, IMAGES)
        torch.testing.assert_close(call(), IMAGES.mean() + 1.0)

    def test_both_exporters_of_torch_give_the_same_numbers(self, small_space):
        from vitresnas.latency.runtimes.onnx import _bound, _session
        from vitresnas.models.to_onnx import to_onnx

        operation = next(one for one in small_space.operations() if one.kind == "attention")
        module = build_piece(operation).eval()
        with torch.inference_mode():
            x = torch.randn(piece_input_shape(operation, 2))
            session = _session(to_onnx(module, x, tracing=False), x.device)
            found = _bound(session, x, torch.empty_like(module(x)))()
            torch.testing.assert_close(found, module(x), rtol=1e-4, atol=1e-4)

    def test_a_graph_that_computes_something_else_is_refused(self):
        class Calls(nn.Module):
            """Tracing keeps what it saw: a number that Python changes from call to call."""

            def __init__(self):
                super().__init__()
                self.calls = 0

            def forward(self, x):
                self.calls += 1
                return x * self.calls

        with pytest.raises(InputError, match=r"differs from eager's .*--runtime eager"):
            self.prepare(Calls(), IMAGES)

    def test_what_cannot_be_exported_is_told_in_one_sentence(self):
        class Odd(nn.Module):
            def forward(self, x):
                return torch.linalg.eigvals(x @ x.transpose(-1, -2)).real

        with pytest.raises(InputError, match=r"onnxruntime cannot run this network .*--runtime"):
            self.prepare(Odd(), IMAGES)

    def test_the_same_threads_as_torch(self, monkeypatch):
        import onnxruntime

        seen = []
        real = onnxruntime.InferenceSession

        def session(model, options, **how):
            seen.append(options.intra_op_num_threads)
            return real(model, options, **how)

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        self.prepare(nn.ReLU(), IMAGES)
        assert seen == [torch.get_num_threads()]

    def test_networks_are_timed_beside_each_other(self, small_space):
        networks = {seed: create_model(small_space.smallest) for seed in range(2)}
        found = time_interleaved(networks, IMAGES, runtime="onnxruntime", seconds=0.1)
        assert min(time.median for time in found.values()) > 0.0

    def test_a_gpu_without_its_provider_is_refused_with_the_package(self):
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("onnxruntime-gpu is installed")
        with pytest.raises(InputError, match="onnxruntime-gpu"):
            usable_runtime("onnxruntime", "cuda")

    def test_a_table_by_the_command(self, small_space, tmp_path, capsys):
        import onnxruntime

        small_space.save(tmp_path / "space.json")
        out = tmp_path / "table.json"
        common = ("--space", str(tmp_path / "space.json"), "--out", str(out), "--device", "cpu")
        options = ("--batch-size", "2", "--seconds", "1", "--threads", "1")
        assert main((*common, *options, "--runtime", "onnxruntime")) == 0
        (table,) = load_tables(out)
        assert table.condition.runtime == "onnxruntime"
        assert dict(table.condition.versions)["onnxruntime"] == onnxruntime.__version__
        assert len(table.entries) == len(small_space.operations())

    @pytest.mark.gpu
    def test_it_computes_the_network_on_a_gpu(self, small_space):
        runtime = find_runtime("onnxruntime")
        if reason := runtime.refuse("cuda"):
            pytest.skip(reason)
        network, images = create_model(small_space.largest).eval().cuda(), IMAGES.cuda()
        with torch.inference_mode():
            call = runtime.prepare(network, images, None)
            torch.testing.assert_close(call(), network(images), rtol=1e-3, atol=1e-3)
