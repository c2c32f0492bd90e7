import argparse
import json

import pytest
import torch

from tests.models.official_oracle import DEFINITION, oracle_logits, random_checkpoint
from vitresnas.__main__ import main
from vitresnas.models.model_directory import load_model, read_card


@pytest.fixture
def checkpoint(tmp_path):
    state = random_checkpoint(DEFINITION, prefix=2)
    path = tmp_path / "authors.pth"
    torch.save({"model": state, "args": argparse.Namespace(epochs=300)}, path)
    return path, state


def test_a_checkpoint_becomes_a_model_directory_with_the_same_logits(tmp_path, capsys, checkpoint):
    path, state = checkpoint
    out = tmp_path / "model"
    arguments = [str(path), "--network-def", repr(DEFINITION), "--out", str(out), "--json"]
    assert main(["import-official", *arguments]) == 0
    summary = json.loads(capsys.readouterr().out)
    model = load_model(out)
    assert summary["architecture_id"] == model.architecture.id == read_card(out)["architecture_id"]
    assert summary["image_size"] == 56 and summary["out"] == str(out)
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    heads = oracle_logits(state, DEFINITION, images)
    with torch.inference_mode():
        expected = (heads["class"] + heads["distillation"]) / 2
        torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=0)


def test_the_definition_may_stand_in_a_file(tmp_path, capsys, checkpoint):
    definition = tmp_path / "tiny.txt"
    definition.write_text(repr(DEFINITION) + "\n")
    out = str(tmp_path / "model")
    arguments = [str(checkpoint[0]), "--network-def", f"@{definition}", "--out", out]
    assert main(["import_official", *arguments]) == 0
    assert "3 blocks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("definition", "sentence"),
    [
        ("__import__('os').getpid()", "is not a nested tuple of numbers"),
        (repr(((5, 16, 9), *DEFINITION[1:])), "conv1.conv.weight has shape (8, 3, 3, 3)"),
        (repr(DEFINITION[:-1]), "ends with a head"),
        ("@nothing.txt", "cannot read the network definition nothing.txt"),
    ],
)
def test_a_definition_that_does_not_fit_is_one_sentence_and_writes_nothing(
    tmp_path, capsys, checkpoint, definition, sentence
):
    out = tmp_path / "model"
    arguments = [str(checkpoint[0]), "--network-def", definition, "--out", str(out)]
    assert main(["import-official", *arguments]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and len(printed.splitlines()) == 1
    assert not out.exists()
