"""python -m vitresnas.train, as a user meets it."""

from __future__ import annotations

import json

import pytest

from vitresnas.train.__main__ import main

FAST = ["--epochs", "1", "--batch-size", "64", "--device", "cpu"]


def test_the_result_is_json_on_stdout_alone(toy_space, tmp_path, capsys):
    arguments = ["--recipe", "digits-supernet", "--space", str(toy_space), *FAST, "--json"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["recipe"] == "digits-supernet"
    assert 0 <= printed["test"]["largest"]["accuracy"] <= 1
    for name in ("search_space.json", "model.safetensors", "supernet_card.json", "metrics.jsonl"):
        assert (tmp_path / "out" / name).exists()
    assert list((tmp_path / "out" / "tensorboard").iterdir())


def test_a_super_network_then_its_smallest_network(toy_space, toy_retrain, tmp_path, capsys):
    supernet = str(tmp_path / "supernet")
    recipe = ["--recipe", "digits-supernet", "--space", str(toy_space), *FAST, "--out", supernet]
    assert main(recipe) == 0
    retrain = ["--recipe", "digits-retrain", "--architecture", toy_retrain.architecture, *FAST]
    retrain += ["--init", "inherited", "--supernet", supernet, "--out", str(tmp_path / "net")]
    assert main(retrain) == 0
    assert "test (only reported)" in capsys.readouterr().out
    for name in ("architecture.json", "model.safetensors", "model_card.json"):
        assert (tmp_path / "net" / name).exists()


def test_a_dry_run_prints_the_plan(toy_space, few_timed_steps, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--recipe", "digits-supernet", "--space", str(toy_space), *FAST, "--dry-run"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "super-network of toy" in printed and "images/s" in printed and "total" in printed
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps_per_epoch"] == 17
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--recipe", "imagenet-22k"], "there is no recipe 'imagenet-22k': use digits-supernet"),
        (["--recipe", "cifar-supernet"], "has no images of its own: give --data"),
        (["--recipe", "digits-supernet", "--data", "/nowhere"], "no data at '/nowhere'"),
        (["--recipe", "digits-supernet", "--space", "huge"], "there is no space 'huge'"),
        (["--recipe", "digits-supernet", "--device", "abacus"], "device is 'abacus'"),
        (["--recipe", "digits-supernet", "--device", "meta"], "device is 'meta'"),
        (["--recipe", "digits-supernet", "--device", "cuda:99"], "device is 'cuda:99'"),
        (["--recipe", "digits-supernet", "--learning-rate", "-1"], "learning_rate is -1.0"),
        (["--recipe", "digits-supernet", "--learning-rate", "nan"], "learning_rate is nan"),
        (["--recipe", "digits-supernet", "--architecture", "tiny"], "does not apply to"),
        (["--recipe", "digits-supernet", "--epochs", "0"], "epochs is 0"),
        (["--recipe", "digits-supernet", "--epochs", "many"], "invalid int value: 'many'"),
        (["--recipe", "digits-supernet", "--workers", "-1"], "workers is -1"),
        (["--recipe", "digits-supernet", "--path", "fast"], "invalid choice: 'fast'"),
        (["--recipe", "digits-retrain"], "name it with --architecture FILE"),
        (["--recipe", "digits-retrain", "--path", "fused"], "--path does not apply to"),
        (["--recipe", "digits-retrain", "--architecture", "none"], "there is no architecture"),
        (
            ["--recipe", "digits-retrain", "--architecture", "digits:largest", "--supernet", "x"],
            "add --init inherited",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, capsys, tmp_path):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert sentence in captured.err
    assert not (tmp_path / "out" / "model.safetensors").exists()
