"""How a super-network's step is computed: chosen where nothing is asked, kept, timed, told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from vitresnas.errors import InputError, MismatchError
from vitresnas.files import read_json
from vitresnas.ops import native
from vitresnas.ops.dispatch import use_backend
from vitresnas.supernet.supernet import PATHS
from vitresnas.train.__main__ import main
from vitresnas.train.path_speeds import PathSpeeds
from vitresnas.train.precision import choose_path, settled
from vitresnas.train.run import look, run

CPU = torch.device("cpu")
BF16 = "sliced" if native.missing() else "fused"


@pytest.mark.parametrize(
    ("number_format", "device_type", "path"),
    [
        ("bf16", "cpu", "fused"),
        ("fp32", "cpu", "sliced"),
        ("bf16", "cuda", "sliced"),
        ("fp32", "cuda", "sliced"),
    ],
)
def test_the_choice_depends_on_number_format_and_device(number_format, device_type, path):
    assert choose_path(number_format, device_type) == path
    assert choose_path(number_format, device_type, built=False) == "sliced"


def test_auto_is_what_suits_or_what_a_run_began_with(toy_supernet):
    auto = replace(toy_supernet, path="auto")
    assert settled(auto, CPU).path == "sliced"  # dtype auto: fp32 on a CPU
    assert settled(replace(auto, dtype="bf16"), CPU).path == BF16
    assert settled(auto, CPU, {"path": "masked"}).path == "masked"
    asked = replace(auto, path="fused")
    assert settled(asked, CPU, {"path": "masked"}) == asked
    with pytest.raises(InputError, match="path is 'fast': use one of auto, fused, sliced, masked"):
        replace(auto, path="fast")


@pytest.fixture
def short(toy_supernet):
    """Three steps in bf16."""
    return replace(toy_supernet, epochs=1, batch_size=384, dtype="bf16", path="auto")


def test_a_run_goes_on_by_its_path_and_a_new_one_takes_what_suits(short, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    result = run(replace(short, path="masked"), old, device="cpu")
    assert run(short, old, device="cpu") == result
    (old / "training_result.json").unlink()  # as if killed after its last checkpoint
    assert run(short, old, device="cpu").holdout == result.holdout
    with pytest.raises(MismatchError, match="path 'masked', this command's is 'fused'"):
        run(replace(short, path="fused"), old, device="cpu")
    run(short, new, device="cpu")
    assert read_json(new / "training_run.json", "training_run")["path"] == BF16


@pytest.mark.parametrize("path", PATHS)
def test_the_command_takes_every_path(path, toy_space, tmp_path):
    arguments = ["--recipe", "digits-supernet", "--space", str(toy_space), "--device", "cpu"]
    arguments += ["--epochs", "1", "--batch-size", "512", "--path", path, "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert read_json(tmp_path / "training_run.json", "training_run")["path"] == path


def test_a_dry_run_times_every_path(short, few_timed_steps):
    found = look(replace(short, batch_size=64), device="cpu")
    assert found.recipe.path == BF16
    assert set(found.paths.images_per_second) == set(PATHS) and not found.paths.left_out
    line = next(line for line in found.lines() if line.startswith("paths "))
    assert all(path in line for path in PATHS) and f"this run takes {BF16}" in line
    assert json.loads(json.dumps(found.to_json()))["paths"]["images_per_second"].keys() == set(
        PATHS
    )


def test_a_path_that_cannot_run_here_is_left_out(toy_supernet, few_timed_steps):
    with use_backend("cuda"):
        found = look(toy_supernet, device="cpu").paths
    assert "fused" in found.left_out and "sliced" in found.images_per_second
    assert "fused not timed: backend" in found.line("sliced")


def test_the_option_is_named_where_another_path_is_clearly_faster():
    found = PathSpeeds({"fused": 478.0, "sliced": 64.25}, {"masked": "it needs about 9 GB"})
    told = "fused 478, sliced 64.2 images/s; masked not timed: it needs about 9 GB; this run takes"
    assert found.line("fused") == f"{told} fused"
    assert found.line("sliced") == f"{told} sliced: --path fused is 7.4 times as fast"
    near = PathSpeeds({"fused": 105.0, "sliced": 100.0})
    assert near.line("sliced").endswith("this run takes sliced")


def test_one_network_has_no_path_and_a_folder_that_tells_one_goes_on(toy_retrain, tmp_path):
    assert settled(toy_retrain, CPU) == toy_retrain
    old, new = tmp_path / "old", tmp_path / "new"
    recipe = replace(toy_retrain, epochs=1, batch_size=384)
    result = run(replace(recipe, path="fused"), old, device="cpu")  # as earlier versions wrote it
    assert run(recipe, old, device="cpu") == result
    (old / "training_result.json").unlink()  # as if killed after its last checkpoint
    assert run(recipe, old, device="cpu").holdout == result.holdout
    run(recipe, new, device="cpu")
    assert read_json(new / "training_run.json", "training_run")["path"] == "auto"


def test_a_look_at_one_network_times_no_paths(toy_retrain, few_timed_steps):
    found = look(toy_retrain, device="cpu")
    assert not found.paths.images_per_second
    assert not any(line.startswith("paths ") for line in found.lines())
