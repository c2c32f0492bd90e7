"""Diverged losses, full disks, damaged and foreign files: one sentence, earlier results stay."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from vitresnas.errors import (
    DataError,
    FileFormatError,
    InputError,
    MismatchError,
    TrainingDiverged,
)
from vitresnas.files import digest
from vitresnas.space import SearchSpace
from vitresnas.train.checkpoints import load_latest, save_checkpoint
from vitresnas.train.objectives import classification
from vitresnas.train.place import Place
from vitresnas.train.run import run, run_identity
from vitresnas.train.tasks import create_task
from vitresnas.train.trainer import Trainer

PLACE = Place(torch.device("cpu"), checkpoint_seconds=0)


def test_a_diverging_run_names_step_rate_and_cure(toy_retrain, tmp_path):
    recipe = replace(
        toy_retrain, learning_rate=1e30, warmup_learning_rate=1e30, clip_gradient=0.0, average=0.0
    )
    with pytest.raises(TrainingDiverged, match=r"loss of step \d+ is (nan|inf).*--learning-rate"):
        run(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_last_step_that_ruins_the_weights_is_told_by_their_score(toy_retrain, tmp_path):
    recipe = replace(
        toy_retrain, learning_rate=1e30, clip_gradient=0.0, average=0.0, epochs=1, batch_size=1000
    )
    sentence = r"after epoch 1 .* scores (nan|inf) on the hold-out"
    with pytest.raises(TrainingDiverged, match=sentence):
        run(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_loss_that_is_no_number_leaves_earlier_checkpoints(toy_supernet, digits, tmp_path):
    task = create_task(toy_supernet, digits)
    calls = 0

    def spoiled(heads, targets_BK):
        nonlocal calls
        calls += 1
        losses = classification(heads, targets_BK)
        return {"loss": losses["loss"] * (float("nan") if calls == 17 * 2 + 6 else 1.0)}

    trainer = Trainer(task, digits, toy_supernet, PLACE, objective=spoiled)
    identity = digest(run_identity(toy_supernet, digits, task))
    with pytest.raises(TrainingDiverged, match=r"loss of step 39 is nan at learning rate 0\.00"):
        trainer.fit(tmp_path, identity)
    state = load_latest(tmp_path, identity)
    assert state is not None and state["epochs"] == 2
    assert all(value.isfinite().all() for value in state["model"].values())


FULL_DISK = """
import resource, sys, torch
from vitresnas.doors import door
from vitresnas.data import Augmentation, Mixing, load_data
from vitresnas.files import digest
from vitresnas.train.objectives import classification
from vitresnas.train.place import Place
from vitresnas.train.recipe import Recipe
from vitresnas.train.run import run_identity
from vitresnas.train.run_folder import claim
from vitresnas.train.tasks import create_task
from vitresnas.train.trainer import Trainer
from pathlib import Path

torch.set_num_threads(1)
calls = 0
def objective(heads, targets):
    global calls
    calls += 1
    if calls == 17 * 2 + 3:  # in the third epoch
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    return classification(heads, targets)

@door
def main(argv=None):
    recipe, out = eval(sys.argv[1]), Path(sys.argv[2])
    data = load_data(recipe.data, image_size=8)
    task = create_task(recipe, data)
    identity = run_identity(recipe, data, task)
    claim(out, identity)
    place = Place(torch.device("cpu"), checkpoint_seconds=0)
    Trainer(task, data, recipe, place, objective).fit(out, digest(identity))
    return 0

sys.exit(main())
"""


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on(toy_supernet, whole, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", FULL_DISK, repr(toy_supernet), str(out)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert child.returncode == 2, child.stderr
    complaint = child.stderr.strip().splitlines()[-1]
    assert complaint.startswith("error: no space left to write") and "epoch-00003" in complaint
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == ["epoch-00001.ckpt", "epoch-00002.ckpt"]
    run(toy_supernet, out, device="cpu")
    weights = "model.safetensors"
    assert (out / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_folder_of_another_run_is_refused_by_field(toy_supernet, tmp_path):
    run(replace(toy_supernet, epochs=1), tmp_path, device="cpu")
    weights = (tmp_path / "model.safetensors").read_bytes()
    toy = SearchSpace.load(toy_supernet.space)
    last = replace(toy.stages[-1], hidden=(64, 32, 16))
    replace(toy, stages=(*toy.stages[:-1], last)).save(tmp_path / "narrower.json")
    changes = {
        "epochs": {"epochs": 2},
        "augmentation.shift": {"augmentation": replace(toy_supernet.augmentation, shift=0.2)},
        "space_id": {"space": str(tmp_path / "narrower.json")},
    }
    for field, change in changes.items():
        with pytest.raises(MismatchError, match=f"holds a run with {field} "):
            run(replace(toy_supernet, **{"epochs": 1, **change}), tmp_path, device="cpu")
    assert (tmp_path / "model.safetensors").read_bytes() == weights


def test_damaged_and_foreign_checkpoints_are_refused_by_name(tmp_path):
    first = save_checkpoint(tmp_path, 1, "run-a", {"model": {"weight": torch.ones(3)}})
    with pytest.raises(MismatchError, match=r"epoch-00001\.ckpt belongs to another run"):
        load_latest(tmp_path, "run-b")
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"epoch-00001\.ckpt is damaged"):
        load_latest(tmp_path, "run-a")
    first.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(FileFormatError, match="is not a checkpoint of vitresnas"):
        load_latest(tmp_path, "run-a")


def test_checkpoints_come_back_and_older_ones_go(tmp_path):
    weight = torch.randn(5)
    for epochs in range(1, 6):
        save_checkpoint(tmp_path, epochs, "run", {"model": {"weight": weight * epochs}})
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["epoch-00004.ckpt", "epoch-00005.ckpt"]
    state = load_latest(tmp_path, "run")
    assert state is not None and torch.equal(state["model"]["weight"], weight * 5)


def test_inherited_weights_need_the_same_classes(toy_retrain, toy_supernet, tmp_path, pets):
    supernet = tmp_path / "supernet"
    run(replace(toy_supernet, epochs=1), supernet, device="cpu")
    recipe = replace(toy_retrain, init="inherited", supernet=str(supernet), data=str(pets))
    with pytest.raises(DataError, match="has 10 classes and the data 2"):
        run(recipe, tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 30}, "cannot be divided into 4 equal groups"),
        ({"init": "inherited"}, "add --supernet DIR"),
        ({"dtype": "fp8"}, "use auto, fp32 or bf16"),
        ({"task": "dream"}, "use supernet or retrain"),
    ],
)
def test_impossible_recipes_are_refused(toy_supernet, change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(toy_supernet, **change)
