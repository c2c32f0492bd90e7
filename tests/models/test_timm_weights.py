"""Plain DeiT of timm as a network of ours, and teachers; no weights are downloaded here."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import timm
import torch

from vitresnas.data import normalise
from vitresnas.errors import InputError, MismatchError
from vitresnas.import_timm import main
from vitresnas.models import create_model, load_model, save_model
from vitresnas.models.timm_weights import from_timm, load_teacher, timm_network
from vitresnas.space import SPACES, macs, parameters

SMALL = {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 10}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_a_deit_keeps_its_logits(name):
    torch.manual_seed(0)
    theirs = timm.create_model(name, **SMALL).eval()
    ours = from_timm(theirs, name)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-6, rtol=0)
    assert parameters(ours.architecture) == sum(p.numel() for p in theirs.parameters())
    assert ours.architecture.depth == 2 and len(ours.architecture.stages) == 1


def test_other_means_are_folded_into_the_patch_embedding():
    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", **SMALL).eval()
    assert theirs.pretrained_cfg["mean"] == theirs.pretrained_cfg["std"] == (0.5, 0.5, 0.5)
    ours = from_timm(theirs, "vit_tiny_patch16_224")
    pixels = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        expected = theirs((pixels - 0.5) / 0.5)
        torch.testing.assert_close(ours(normalise(255 * pixels)), expected, atol=1e-5, rtol=0)


def test_the_published_deit_tiny_is_as_large_as_its_paper_says(tmp_path, capsys):
    weights = tmp_path / "deit.safetensors"
    torch.manual_seed(0)
    theirs = timm.create_model("deit_tiny_patch16_224").eval()
    from safetensors.torch import save_file

    save_file(theirs.state_dict(), weights)
    out = tmp_path / "deit"
    options = ["--weights", str(weights), "--out", str(out), "--json"]
    assert main(["deit_tiny_patch16_224", *options]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["parameters_inference"] == 5_717_416  # 5 M in the paper's table 1
    assert summary["macs"] == macs(load_model(out).architecture) > 1.2e9
    config = timm.create_model(f"local-dir:{out}", pretrained=True).pretrained_cfg
    assert config["crop_pct"] == 0.9 and config["first_conv"] == "embedding.projection"
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(load_model(out)(images), theirs(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet18", "resnet18 is a ResNet: give a plain DeiT or ViT of timm"),
        ("deit3_small_patch16_224", r"has blocks.0.ls1.gamma, which a plain DeiT lacks"),
    ],
)
def test_other_networks_are_refused_by_what_they_have(name, sentence):
    with torch.device("meta"):
        network = timm.create_model(name)
    with pytest.raises(InputError, match=sentence):
        from_timm(network, name)


def test_a_network_without_classifier_is_refused():
    network = timm.create_model("deit_tiny_patch16_224", **(SMALL | {"num_classes": 0}))
    with pytest.raises(InputError, match="deit has no classifier: give a network"):
        from_timm(network, "deit")


def test_without_network_the_sentence_tells_how_to_get_weights(offline, tmp_path, capsys):
    assert main(["deit_tiny_patch16_224", "--out", str(tmp_path / "x")]) == 2
    printed = capsys.readouterr().err
    assert "cannot get the pre-trained weights of deit_tiny_patch16_224" in printed
    assert "give a file with --weights" in printed and len(printed.splitlines()) == 1
    assert not (tmp_path / "x").exists()
    for name, weights, sentence in (
        ("deit_tny", None, "timm has no network 'deit_tny': it has "),
        ("deit_tiny_patch16_224", tmp_path / "no.pth", "cannot read .*no.pth as weights of deit"),
    ):
        with pytest.raises(InputError, match=sentence):
            timm_network(name, weights)


def test_a_model_directory_can_be_a_teacher(offline, tmp_path):
    student = create_model(SPACES["digits"].smallest)
    save_model(student, tmp_path / "model", {})
    teacher = load_teacher(tmp_path / "model", classes=10)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert teacher(torch.zeros(1, 3, 16, 16)).shape == (1, 10)
    with pytest.raises(MismatchError, match="has 10 classes and the data has 3"):
        load_teacher(tmp_path / "model", classes=3)
    with pytest.raises(
        InputError, match=r"weights of resnet18 .* name a model directory as the te"
    ):
        load_teacher("resnet18", classes=1000)
    assert load_teacher("resnet18", classes=1000, pretrained=False).num_classes == 1000
