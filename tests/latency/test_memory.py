"""Peak memory: the formula against torch's own allocation events, and its shape over a space."""

import json
from dataclasses import replace
from random import Random

import pytest
import torch

from vitresnas.errors import FileFormatError
from vitresnas.latency.measure_memory import measure_peak
from vitresnas.latency.memory import MemoryCheck, live_elements, peak_bytes
from vitresnas.models import create_model
from vitresnas.space import Embedding, load_space

COUNTERS = 3 * 8  # each BatchNorm counts its batches in eight bytes


@pytest.mark.parametrize("prefix_tokens", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_torch_allocates_what_the_formula_says_and_the_scratch_of_libraries(
    small_space, batch_size, prefix_tokens
):
    space = replace(small_space, prefix_tokens=prefix_tokens)
    images = torch.randn(batch_size, 3, 8, 8)
    for seed in range(6):
        network = space.sample(Random(seed))
        measured, how = measure_peak(create_model(network).eval(), images)
        predicted = peak_bytes(network, batch_size, "fp32")
        assert how == "torch's allocation events"
        # oneDNN may copy what a reduction reads, and these networks are little more than that.
        assert predicted <= measured - COUNTERS <= 1.35 * predicted


def test_networks_of_digits_need_what_the_formula_says_to_the_byte():
    space, images = load_space("digits"), torch.randn(32, 3, 16, 16)
    exact = 0
    for network in (space.smallest, *(space.sample(Random(seed)) for seed in range(5))):
        measured, _ = measure_peak(create_model(network).eval(), images)
        exact += measured - COUNTERS == peak_bytes(network, 32, "fp32")
    assert exact >= 4


def test_a_linear_embedding_and_half_precision_are_known_too(small_space):
    linear = replace(small_space, embedding=Embedding("linear", 0)).largest
    images = torch.randn(4, 3, 8, 8)
    measured, _ = measure_peak(create_model(linear).eval(), images)
    assert measured == pytest.approx(peak_bytes(linear, 4, "fp32"), rel=0.35)
    assert peak_bytes(linear, 4, "bf16") * 2 == peak_bytes(linear, 4, "fp32")


def test_wider_and_deeper_never_needs_less():
    space = load_space("digits")
    low, high = live_elements(space.smallest), live_elements(space.largest)
    for seed in range(50):
        assert low <= live_elements(space.sample(Random(seed))) <= high


def test_a_check_tells_its_error_and_survives_json():
    check = MemoryCheck("a scale", ("a", "b"), (100, 220), (100, 200))
    assert check.mean_percent == pytest.approx(5.0) and check.worst_percent == pytest.approx(10.0)
    document = json.loads(json.dumps(check.to_json()))
    assert MemoryCheck.from_json(document, "here") == check
    with pytest.raises(FileFormatError, match="no networks"):
        MemoryCheck.from_json({"how": "a scale", "networks": []}, "here")


@pytest.mark.gpu
def test_the_formula_holds_on_a_gpu():
    network = load_space("tiny").smallest
    module = create_model(network).eval().cuda()
    measured, how = measure_peak(module, torch.randn(32, 3, 224, 224, device="cuda"))
    assert "cuda" in how
    assert measured == pytest.approx(peak_bytes(network, 32, "fp32"), rel=0.25)
