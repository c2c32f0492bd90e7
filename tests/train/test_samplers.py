"""Samplers and token-level labels in training: the right loss, and runs that resume."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tests.train.test_resume import assert_equal_runs
from vitresnas.data import Augmentation, Mixing
from vitresnas.data.share import Piece
from vitresnas.errors import InputError
from vitresnas.models.model_directory import load_model
from vitresnas.supernet import load_supernet
from vitresnas.train.__main__ import main
from vitresnas.train.place import Place
from vitresnas.train.run import run, run_identity
from vitresnas.train.tasks import RetrainTask, SupernetTask, create_task, drawn_at, supernet_space
from vitresnas.train.trainer import Trainer

PLACE = Place(torch.device("cpu"), checkpoint_seconds=0)
TOKENS = Mixing(mixup=0.8, cutmix=1.0, tokens=True)


@pytest.fixture(scope="module")
def plain(toy_supernet):
    return replace(
        toy_supernet,
        batch_size=16,
        groups=3,
        sampler="sandwich",
        widening_epochs=0,
        drop_path=0.0,
        average=0.0,
        augmentation=Augmentation(),
        mixing=Mixing(),
    )


@pytest.mark.parametrize("tokens", [False, True])
def test_the_sandwich_teaches_every_network_what_the_largest_says(plain, digits, tokens):
    recipe = replace(plain, mixing=TOKENS if tokens else Mixing())
    task = SupernetTask(recipe, supernet_space(recipe, digits))
    trainer = Trainer(task, digits, recipe, PLACE)
    model, space = task.model.double().eval(), task.space
    images, labels = next(trainer.loader.epoch(0))
    images, targets = trainer.mixer(images.double(), labels, 0, 0)
    with torch.no_grad():
        heads = task.heads(images, 0, 0, Piece())
        drawn = [space.largest, *drawn_at(recipe, space, 0, 0)[1:-1], space.smallest]
        alone = [model.forward_heads(images, (architecture,)) for architecture in drawn]
    expected = []
    for number, logits in enumerate(alone):
        loss = torch.zeros((), dtype=torch.float64)
        for name in ("class", "patch")[: 1 + tokens]:
            soft = targets[name].double() if number == 0 else alone[0][name].softmax(-1)
            loss += -(soft * F.log_softmax(logits[name], -1)).sum(-1).mean()
        expected.append(loss)
    found = trainer.objective(heads, targets)
    torch.testing.assert_close(found["loss"], torch.stack(expected).mean())
    torch.testing.assert_close(found["taught"], expected[0])


@pytest.mark.parametrize("sampler", ["multi-architecture", "sandwich"])
def test_samplers_with_token_labels_resume(plain, digits, tmp_path, sampler):
    recipe = replace(plain, sampler=sampler, batch_size=384, epochs=2, mixing=TOKENS)
    run(recipe, tmp_path / "whole", device="cpu")
    supernet = load_supernet(tmp_path / "whole")
    assert supernet.network.patch_head is not None

    killed = tmp_path / "killed"
    task = create_task(recipe, digits)
    identity = run_identity(recipe, digits, task)
    steps = iter(range(1000))
    with pytest.raises(KeyboardInterrupt):
        Trainer(task, digits, recipe, PLACE).fit(killed, identity, lambda: next(steps) == 2)
    run(recipe, killed, device="cpu")
    assert_equal_runs(killed, tmp_path / "whole")


def test_a_sandwich_runs_all_networks_on_every_piece_of_a_batch(plain, digits):
    recipe = replace(plain, accumulation=2)
    trainer = Trainer(create_task(recipe, digits), digits, recipe, PLACE)
    whole = Trainer(create_task(plain, digits), digits, plain, PLACE)
    images, labels = next(trainer.loader.epoch(0))
    torch.manual_seed(0)
    parts = trainer.train_step(images, labels, 0, 0)
    assert parts["loss"].item() == pytest.approx(
        whole.train_step(images, labels, 0, 0)["loss"].item(), abs=1e-2
    )  # BatchNorm sees halves
    assert whole.task.expected_macs(3) > 2 * create_task(
        replace(plain, sampler="single-architecture"), digits
    ).expected_macs(3)


def test_a_network_inherits_from_a_super_network_with_a_patch_head(
    plain, toy_retrain, digits, tmp_path
):
    run(
        replace(plain, epochs=1, batch_size=384, mixing=TOKENS), tmp_path / "supernet", device="cpu"
    )
    inherited = replace(toy_retrain, init="inherited", supernet=str(tmp_path / "supernet"))
    assert RetrainTask(inherited, 10).model.patch_head is None
    recipe = replace(inherited, epochs=1, mixing=TOKENS)
    source = load_supernet(tmp_path / "supernet").network.patch_head
    found = RetrainTask(recipe, 10).model.patch_head
    assert source is not None and found is not None
    torch.testing.assert_close(found.weight, source.weight[:, : found.in_features])
    run(recipe, tmp_path / "network", device="cpu")
    assert load_model(tmp_path / "network").patch_head is not None


def test_the_command_names_the_sampler(toy_space, few_timed_steps, capsys):
    base = ["--recipe", "digits-supernet", "--space", str(toy_space), "--batch-size", "16"]
    assert main([*base, "--sampler", "sandwich", "--groups", "4", "--dry-run"]) == 0
    assert "sandwich sampling" in capsys.readouterr().out
    assert main([*base, "--sampler", "greedy"]) == 2
    assert "there is no sampler 'greedy'" in capsys.readouterr().err
    assert main([*base, "--sampler", "sandwich", "--groups", "1"]) == 2
    assert "at least 2 networks per step" in capsys.readouterr().err


def test_layer_rates_are_for_one_network(plain):
    with pytest.raises(InputError, match="layer_decay is for one network"):
        replace(plain, layer_decay=0.7)
