"""vitresnas verify: a model's speed here and now, and the verdict on its card."""

from __future__ import annotations

import json

import pytest
import torch

from vitresnas.models import create_model
from vitresnas.models.model_directory import OURS, load_model, read_card, save_model, update_card
from vitresnas.search.check import exit_code, judge
from vitresnas.verify.__main__ import main
from vitresnas.verify.timing import verify


@pytest.fixture
def model(search_kit, tmp_path):
    """A model directory such as a search with a foreign table leaves."""
    torch.manual_seed(0)
    network = create_model(search_kit.space.smallest)
    target = {"amount": 0.5, "relative": True, "requested": "0.5x", "images_per_second": 1.0}
    target |= {"batch_size": 8, "dtype": "fp32", "runtime": "eager", "threads": 1, "device": "far"}
    card = {"verdict": "unproven", "target": target, "largest": search_kit.space.largest.to_json()}
    save_model(network, tmp_path / "search" / "model", {**card, "note": "kept"})
    return tmp_path / "search" / "model"


def read_card_of_search(model):
    """Its card without what save_model adds."""
    return {name: value for name, value in read_card(model).items() if name not in OURS}


def test_it_completes_the_verdict_on_the_card_and_leaves_the_weights(model, capsys):
    weights = (model / "model.safetensors").read_bytes()
    assert main([str(model), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    card = read_card(model)
    assert document["verdict"] == card["verdict"] == "met"
    assert card["speed"] == document["speed"] and card["note"] == "kept"
    assert card["target"]["device"] != "far"
    low, high = document["speed"]["relative_interval_95"]
    assert 0.5 <= low <= document["speed"]["relative"] <= high
    assert (model / "model.safetensors").read_bytes() == weights
    load_model(model)


def test_another_runtime_is_timed_and_told(model, capsys, compilations):
    assert main([str(model), "--runtime", "compile"]) == 0
    assert compilations and read_card(model)["target"]["runtime"] == "compile"
    assert main([str(model), "--runtime", "cuda-graph", "--device", "cpu"]) == 2
    assert "NVIDIA GPU" in capsys.readouterr().err


def test_the_folder_of_a_search_stands_for_its_model(model):
    assert main([str(model.parent)]) == 0
    assert read_card(model)["verdict"] == "met"


def test_a_target_that_is_missed_exits_4(model, capsys):
    assert main([str(model), "--throughput-target", "1000x"]) == 4
    assert read_card(model)["verdict"] == "missed"
    assert capsys.readouterr().out.startswith("missed: 1000x")


def test_near_the_target_it_measures_on_and_the_verdict_is_that_of_the_interval(
    model, search_kit, capsys
):
    save_model(create_model(search_kit.space.largest), model, read_card_of_search(model))
    code = main([str(model), "--throughput-target", "1x", "--seconds", "0.05", "--json"])
    output = capsys.readouterr()
    document = json.loads(output.out)
    verdict, speed = document["verdict"], document["speed"]
    assert verdict == judge(speed["relative_interval_95"], 1.0) and code == exit_code(verdict)
    assert output.err.count(" s more, look") == speed["looks"] - 1
    assert speed["looks"] == 4 or verdict != "undecided"
    assert read_card(model)["speed"] == speed
    assert main([str(model), "--seconds", "0"]) == 2


def test_an_absolute_target_is_compared_with_images_per_second(model):
    found = verify(model, seconds=0.1)
    speed = found.speed["interval_95"][0]
    assert main([str(model), "--throughput-target", str(round(speed / 4))]) == 0
    assert read_card(model)["target"]["relative"] is False


def test_a_model_that_no_search_made_needs_a_target_in_images_per_second(
    tmp_path, search_kit, capsys
):
    model = str(tmp_path / "model")
    save_model(create_model(search_kit.space.smallest), model, {"note": "kept"})
    assert main([model]) == 2
    assert "names no target: give --throughput-target" in capsys.readouterr().err
    assert main([model, "--throughput-target", "2x"]) == 2
    assert "no largest network to compare with for 2x" in capsys.readouterr().err
    assert main([model, "--throughput-target", "1", "--batch-size", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["target"]["batch_size"] == 3 and "relative" not in document["speed"]
    assert read_card(tmp_path / "model")["verdict"] == "met"
    assert main([model]) == 0  # the card knows the target now
    assert main([str(tmp_path)]) == 0 and main([str(tmp_path / "nowhere")]) == 2


def test_a_model_trained_after_a_search_is_held_to_its_target_and_conditions(
    model, search_kit, tmp_path, capsys
):
    final, other = tmp_path / "final", tmp_path / "other"
    save_model(create_model(search_kit.space.smallest), final, {"note": "trained alone"})
    save_model(create_model(search_kit.space.largest), other, {"note": "trained alone"})
    target = {"amount": 1000.0, "relative": True, "batch_size": 3, "dtype": "bf16"}
    update_card(model, {"target": {**read_card(model)["target"], **target}})
    assert main([str(final), "--as", str(model.parent), "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert {name: found["target"][name] for name in target} == target
    assert "relative" in found["speed"] and read_card(final)["note"] == "trained alone"
    command = [str(final), "--as", str(model), "--throughput-target", "0.1x", "--dtype", "fp32"]
    assert main(command) == 0  # what is said stands above what the search says
    assert read_card(final)["target"]["dtype"] == "fp32"
    assert main([str(other), "--as", str(model.parent)]) == 2
    assert "give the search that found it" in capsys.readouterr().err
    assert main([str(final), "--as", str(other)]) == 2
    assert "does not come from a search" in capsys.readouterr().err
    assert "target" not in read_card(other)


@pytest.mark.parametrize("target", ["0", "abc", "-1x"])
def test_a_bad_target_exits_2_and_leaves_the_card(model, capsys, target):
    before = (model / "model_card.json").read_bytes()
    assert main([str(model), f"--throughput-target={target}"]) == 2
    assert repr(target) in capsys.readouterr().err
    assert (model / "model_card.json").read_bytes() == before


def test_with_its_images_it_is_scored_class_by_class(search_kit, tmp_path, capsys):
    model = tmp_path / "model"
    save_model(create_model(search_kit.space.smallest), model, {"note": "kept"})
    command = [str(model), "--throughput-target", "1", "--batch-size", "8", "--data", "digits"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found, counts = document["test"], document["test_images"]
    assert read_card(model)["test"] == found and sum(counts) == found["images"] == 360
    rows = zip(found["accuracy_by_class"], counts, strict=True)
    assert sum(right * count for right, count in rows) / 360 == pytest.approx(found["accuracy"])
    update_card(model, {"data": {"name": "photos", "id": "abc123"}})
    assert main(command) == 2
    assert "not the images that" in capsys.readouterr().err
