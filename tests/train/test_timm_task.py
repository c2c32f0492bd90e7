"""A network of timm trained by a recipe of ours: the same loop, files that timm reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file

from vitresnas.data import Mixing
from vitresnas.errors import InputError
from vitresnas.files import read_json
from vitresnas.models.timm_sized import TimmNetwork
from vitresnas.train.__main__ import main
from vitresnas.train.optimiser import create_optimizer
from vitresnas.train.result import TrainingResult
from vitresnas.train.run import look, run
from vitresnas.train.tasks import create_task

SIZES = {"patch_size": 2, "embed_dim": 16, "num_heads": 2, "depth": 2}
NETWORK = TimmNetwork("deit_tiny_patch16_224", 8, SIZES)


@pytest.fixture
def rival(toy_retrain, tmp_path):
    path = tmp_path / "rival.json"
    NETWORK.save(path)
    return replace(toy_retrain, architecture=f"timm:{path}", drop_path=0.1)


def test_a_run_ends_in_weights_that_timm_reads(rival, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--recipe", "digits-retrain", "--architecture", rival.architecture, "--epochs", "1"]
    assert main([*command, "--batch-size", "379", "--device", "cpu", "--out", str(out)]) == 0
    assert "network" in capsys.readouterr().out
    result = TrainingResult.load(out)
    assert result is not None and result.test["network"]["accuracy"] > 0.05
    card = read_json(out / "timm_card.json", "timm_card")
    saved = TimmNetwork.load(out / "timm_network.json")
    assert saved == NETWORK and card["timm_network"] == NETWORK.to_json()
    model = timm.create_model(
        saved.name,
        img_size=saved.image_size,
        num_classes=10,
        checkpoint_path=str(out / "model.safetensors"),
        **saved.options,
    )
    weights = load_file(out / "model.safetensors")
    assert all(torch.equal(weights[name], found) for name, found in model.state_dict().items())
    assert card["parameters"] == sum(p.numel() for p in model.parameters())


def test_an_interrupted_run_ends_the_same(rival, tmp_path):
    from vitresnas.data import load_data
    from vitresnas.train.place import Place
    from vitresnas.train.run import run_identity
    from vitresnas.train.trainer import Trainer

    whole = run(rival, tmp_path / "whole", device="cpu")
    data = load_data(rival.data, image_size=8)
    out, task = tmp_path / "resumed", create_task(rival, data)
    trainer = Trainer(task, data, rival, Place(torch.device("cpu"), checkpoint_seconds=0))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(out, run_identity(rival, data, task), stop=lambda: trainer.steps_done >= 7)
    resumed = run(rival, out, device="cpu")
    assert (resumed.holdout, resumed.test) == (whole.holdout, whole.test)


def test_what_timm_leaves_undecayed_is_undecayed(rival, digits):
    model = create_task(rival, digits).model
    _, free = create_optimizer(model, rival).param_groups
    named = dict(model.named_parameters())
    undecayed = {name for name in named if any(named[name] is one for one in free["params"])}
    assert {"pos_embed", "cls_token", "norm.bias"} <= undecayed
    assert "blocks.0.attn.qkv.weight" not in undecayed


def test_a_look_tells_what_it_is(rival, monkeypatch):
    monkeypatch.setattr("vitresnas.train.dry_run.TIMED_STEPS", 1)
    found = look(rival, device="cpu")
    assert "timm's deit_tiny_patch16_224 at 8 pixels" in found.model
    # By hand: patches, two blocks of 12 C^2 and attention, the classifier.
    tokens, width = 17, 16
    blocks = 2 * (tokens * 12 * width**2 + 2 * tokens**2 * width)
    assert found.macs_last_epoch == 16 * 12 * width + blocks + 10 * width


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("timm:resnet18", "names no image size: write it as in timm:resnet18@32"),
        ("timm:resnet81@32", "did you mean resnet18"),
        ("timm:nothing.json", "nothing.json"),
    ],
)
def test_a_wrong_name_is_one_sentence(toy_retrain, spec, sentence):
    with pytest.raises(InputError, match=sentence):
        _ = replace(toy_retrain, architecture=spec).timm


def test_sizes_that_do_not_fit_are_named(rival, tmp_path, digits):
    path = tmp_path / "odd.json"
    replace(NETWORK, options={**SIZES, "num_heads": 3}).save(path)
    with pytest.raises(InputError, match="cannot read images of 8 pixels with the options"):
        create_task(replace(rival, architecture=f"timm:{path}"), digits)


@pytest.mark.parametrize(
    "change",
    [
        {"init": "trained"},
        {"image_size": 16},
        {"teacher": "resnet18"},
        {"mixing": Mixing(mixup=0.8, cutmix=1.0, tokens=True)},
    ],
)
def test_what_only_our_networks_have_is_refused(rival, change):
    with pytest.raises(InputError, match="is trained as timm has it"):
        replace(rival, **change)
