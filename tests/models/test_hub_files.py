"""README.md and config.json say what architecture and card say, in the hub's own terms."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from huggingface_hub import ModelCard, ModelCardData

import vitresnas.models  # noqa: F401  registers the networks
from vitresnas.models.hub_files import hub_readme
from vitresnas.models.model_directory import load_model, save_model, update_card, write_hub_files
from vitresnas.models.vit_res import create_model
from vitresnas.space import NETWORKS, SPACES

SEARCHED = {
    "verdict": "met",
    "target": {"requested": "2x", "device": "a | GPU", "batch_size": 32, "dtype": "fp32"}
    | {"runtime": "eager"},
    "speed": {"images_per_second": 2998.4, "interval_95": [2964.0, 3018.0]}
    | {"relative": 2.3, "relative_interval_95": [2.28, 2.34]},
    "data": {"name": "digits", "id": "x"},
    "holdout": {"accuracy": 0.9867, "negative_log_likelihood": 0.0942, "images": 300},
    "test": {"accuracy": 0.9944, "negative_log_likelihood": 0.03, "images": 360},
    "environment": {"device": "a GPU", "versions": {"torch": "2.11"}, "commit": "abc"},
}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = create_model(SPACES["digits"].smallest, patch_head=True).eval()
    save_model(model, tmp_path, SEARCHED)
    return model


def test_the_card_carries_the_measured_numbers(tmp_path, saved):
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == "image-classification"
    results = ModelCardData(**card.data.to_dict()).eval_results or []
    assert {(found.dataset_split, found.metric_value) for found in results} == {
        ("holdout", 0.9867),
        ("test", 0.9944),
    }
    for words in (
        "| Accuracy, test of digits | 99.44 % |",
        "| Throughput on a \\| GPU, batch 32, fp32, eager | 2,998 images/s",
        " (95 %: 2,964 to 3,018) |",
        "2.30 times as fast (95 %: 2.28 to 2.34)",
        "| Target of 2x | met |",
        "| torch | 2.11 |",
    ):
        assert words in card.text, words


def test_a_new_verdict_reaches_the_readme(tmp_path, saved):
    update_card(tmp_path, {"verdict": "missed"})
    assert "| Target of 2x | missed |" in (tmp_path / "README.md").read_text()


def test_a_card_without_numbers_claims_none(tmp_path):
    text = hub_readme(NETWORKS["tiny"], {"parameters": 1, "macs": 2, "source": "x.pth"})
    card = ModelCard(text)
    assert "model-index" not in card.data.to_dict() and "What was measured" not in text
    assert "license" not in card.data.to_dict() and "| Source | x.pth |" in text


def test_directories_from_before_these_files_get_them(tmp_path, saved):
    before = {name: (tmp_path / name).read_bytes() for name in ("README.md", "config.json")}
    for name in before:
        (tmp_path / name).unlink()
    write_hub_files(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_timm_builds_the_network_with_its_weights_from_the_directory(tmp_path, saved):
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        for model in (
            timm.create_model(f"local-dir:{tmp_path}", pretrained=True),
            timm.create_model("vitresnas", architecture=tmp_path, pretrained=True),
        ):
            assert torch.equal(model.eval()(images), saved(images))
            assert timm.data.resolve_model_data_config(model)["crop_pct"] == 1.0
        larger = timm.create_model(
            f"local-dir:{tmp_path}", pretrained=True, img_size=32, num_classes=3
        ).eval()
        images = torch.ones(1, 3, 32, 32)
        assert larger(images).shape == (1, 3)
        tokens = saved.at_resolution(32).features(images).tokens
        assert torch.equal(larger.forward_features(images), tokens)


def test_timm_names_the_classes(tmp_path):
    names = ["cat", "dog"]
    model = create_model(SPACES["digits"].with_data(classes=2).smallest)
    save_model(model, tmp_path, {"class_names": names})
    assert json.loads((tmp_path / "config.json").read_text())["label_names"] == names
    assert load_model(tmp_path).architecture == model.architecture
