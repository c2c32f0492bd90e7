"""Training on another device than the CPU: everything is where it must be, and learns the same."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.second_device import second_device
from vitresnas.data import Augmentation, Mixing
from vitresnas.files import read_lines
from vitresnas.models import create_model
from vitresnas.models.model_directory import save_model
from vitresnas.train import place
from vitresnas.train.recipe import Recipe
from vitresnas.train.run import run

# An epoch is one step on 768 of the digits: on the second device every op goes through Python.
# Drop path draws on the device itself, so there it drops others.
TWO_STEPS = {
    "epochs": 2,
    "batch_size": 768,
    "evaluate_every": 2,
    "drop_path": 0.0,
    "dtype": "fp32",
}
TOKENS = Mixing(mixup=0.8, cutmix=1.0, tokens=True)
CROP_AND_COLOUR = Augmentation(crop=(0.3, 1.0), colour=0.3, flip=0.5)
POLICY = Augmentation(policy="rand-m9-mstd0.5-inc1", rotate=10.0)

SUPERNETS = {
    "sliced": {"path": "sliced", "clip_gradient": 1.0},
    "masked": {"path": "masked", "mixing": TOKENS},
    "fused": {"path": "fused", "augmentation": CROP_AND_COLOUR},
    "sandwich": {"sampler": "sandwich", "mixing": Mixing()},
}
NETWORKS = {
    "random": {"augmentation": POLICY, "layer_decay": 0.8},
    "inherited": {"init": "inherited", "average": 0.9, "sampling": "balanced"},
    "taught": {"teacher": "itself", "distillation": "soft", "mixing": Mixing()},
    "timm": {"architecture": "timm:resnet18@8", "accumulation": 2},
}


@pytest.fixture(params=["second", pytest.param("cuda", marks=pytest.mark.gpu)])
def elsewhere(request, monkeypatch):
    """A context inside which training can be asked for the device that it yields."""
    if request.param == "cuda":
        return lambda: contextlib.nullcontext("cuda"), 0.02  # convolutions round to TF32 there
    monkeypatch.setattr(place, "resolve_device", lambda name: name)

    @contextlib.contextmanager
    def asked() -> Iterator[str]:
        with second_device() as device:
            yield str(device)

    return asked, 1e-4


def learned(recipe: Recipe, out, device: str) -> list[dict[str, float]]:
    """Each epoch's losses and, last, what the networks score on the test images."""
    result = run(recipe, out, device=device, workers=0)
    kept = [
        {name: line[name] for name in line if name == "loss" or name.endswith("_nll")}
        for line in read_lines(out / "metrics.jsonl")
    ]
    return [*kept, {name: score["negative_log_likelihood"] for name, score in result.test.items()}]


def assert_the_same_is_learned(recipe: Recipe, tmp_path, elsewhere):
    asked, tolerance = elsewhere
    here = learned(recipe, tmp_path / "here", "cpu")
    with asked() as device:
        there = learned(recipe, tmp_path / "there", device)
    for expected, found in zip(here, there, strict=True):
        assert found == pytest.approx(expected, rel=tolerance)
        assert all(map(math.isfinite, found.values()))


@pytest.mark.parametrize("options", SUPERNETS.values(), ids=SUPERNETS)
def test_a_supernet_is_trained_on_another_device(options, toy_supernet, tmp_path, elsewhere):
    recipe = replace(toy_supernet, **{**TWO_STEPS, "widening_epochs": 1, **options})
    assert_the_same_is_learned(recipe, tmp_path, elsewhere)


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_a_network_is_trained_on_another_device(options, toy_retrain, whole, tmp_path, elsewhere):
    if options.get("init"):
        options = {**options, "supernet": str(whole)}
    if options.get("teacher"):
        teacher = tmp_path / "teacher"
        save_model(create_model(toy_retrain.network), teacher, {})
        options = {**options, "teacher": str(teacher)}
    recipe = replace(toy_retrain, **{**TWO_STEPS, **options})
    assert_the_same_is_learned(recipe, tmp_path, elsewhere)
