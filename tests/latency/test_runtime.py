"""Runtimes: what a prepared call runs, what is done before it counts, and what is refused."""

import pytest
import torch
from torch._inductor import config, cpp_builder

from vitresnas.errors import InputError
from vitresnas.latency.measure import time_interleaved
from vitresnas.latency.runtime import find_runtime, usable_runtime
from vitresnas.models import create_model
from vitresnas.models.pieces import build_piece, piece_input_shape


def prepare(module, x, runtime, operation=None):
    return find_runtime(runtime).prepare(module, x, operation)


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_compiled_piece_computes_the_piece_and_is_compiled_before_it_is_called(
    small_space, compilations
):
    pieces = {operation.kind: operation for operation in small_space.operations()}
    with torch.inference_mode():
        for number, operation in enumerate(pieces.values(), start=1):
            module = build_piece(operation).eval()
            x = torch.randn(piece_input_shape(operation, 2))
            call = prepare(module, x, "compile", operation)
            assert len(compilations) == number
            torch.testing.assert_close(call(), module(x))
            assert len(compilations) == number


def test_networks_share_the_compiled_code_of_equal_pieces(small_space, compilations):
    networks = {seed: create_model(small_space.largest) for seed in range(3)}
    found = time_interleaved(networks, IMAGES, runtime="compile", seconds=0.1)
    # embedding, 2 x (attention, mlp), reduction, head: blocks of one stage are equal.
    assert len(compilations) == 7
    assert min(time.median for time in found.values()) > 0.0


def test_compiling_gets_no_priority_and_is_not_timed(small_space, compilations, monkeypatch):
    import contextlib

    from vitresnas.latency import measure

    @contextlib.contextmanager
    def priority(threads):
        before = len(compilations)
        yield "normal"
        assert before == len(compilations) > 0

    monkeypatch.setattr(measure, "measuring_priority", priority)
    time_interleaved(
        {"a": create_model(small_space.smallest)}, IMAGES, runtime="compile", seconds=0.1
    )


def test_any_other_callable_is_compiled_whole(compilations):
    call = prepare(lambda images: images.mean() + 1.0, IMAGES, "compile")
    torch.testing.assert_close(call(), IMAGES.mean() + 1.0)
    assert len(compilations) == 1


def test_what_cannot_be_compiled_is_told_in_one_sentence(compilations):
    with pytest.raises(InputError, match=r"torch\.compile fails on this network .*--runtime eager"):
        prepare(lambda images: torch._dynamo.graph_break(), IMAGES, "compile")


def test_a_machine_without_a_compiler_says_which_it_looked_for():
    cpp_builder.cpp_compiler_search.cache_clear()
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(InputError, match=r"C\+\+ compiler \(no-such-compiler\).*--runtime eager"),
    ):
        usable_runtime("compile", "cpu")
    cpp_builder.cpp_compiler_search.cache_clear()
    usable_runtime("compile", "cpu")


@pytest.mark.slow
def test_a_network_compiled_for_real_keeps_its_logits(small_space):
    network = create_model(small_space.smallest).eval()
    with torch.inference_mode():
        call = prepare(network, IMAGES, "compile")
        torch.testing.assert_close(call(), network(IMAGES), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", ["eager", "compile", "cuda-graph"])
def test_every_runtime_computes_the_network_on_a_gpu(small_space, runtime):
    network = create_model(small_space.largest).eval().cuda()
    images = IMAGES.cuda()
    with torch.inference_mode():
        call = prepare(network, images, runtime)
        torch.testing.assert_close(call(), network(images), rtol=1e-4, atol=1e-4)
