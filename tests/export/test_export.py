"""Exported files give the same logits where this package, and for ONNX torch, is missing."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.official_oracle import DEFINITION, oracle_logits, random_checkpoint
from vitresnas.__main__ import main
from vitresnas.errors import InputError
from vitresnas.export import FORMATS, export, export_model
from vitresnas.export.export import Format
from vitresnas.models import create_model, load_model, save_model
from vitresnas.space import SPACES

ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
for name in ("torch", "vitresnas", "timm"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} can be imported, so this proves nothing")
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
images = numpy.load(sys.argv[3])
numpy.save(sys.argv[4], session.run(["logits"], {"images": images})[0])
"""
WITHOUT_US = """
import sys
sys.modules["vitresnas"] = None  # importing it fails
import json, torch
torch.set_num_threads(1)
facts = {"vitresnas.json": ""}
program = torch.export.load(sys.argv[1], extra_files=facts)
assert json.loads(facts["vitresnas.json"])["mean"] == "[0.485, 0.456, 0.406]"
torch.save(program.module()(torch.load(sys.argv[2])), sys.argv[3])
"""


def small_model(path: Path, **changes) -> Path:
    torch.manual_seed(0)
    save_model(create_model(replace(SPACES["digits"].smallest, **changes)), path, {"note": "none"})
    return path


def packages(folder: Path, *names: str) -> Path:
    """A folder on whose path these packages of this environment are, and no others."""
    folder.mkdir()
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.submodule_search_locations is not None
        home = Path(spec.submodule_search_locations[0])
        (folder / name).symlink_to(home)
        libraries = home.parent / f"{name}.libs"
        if libraries.is_dir():
            (folder / libraries.name).symlink_to(libraries)
    return folder


def test_an_authors_checkpoint_gives_its_logits_in_onnxruntime_without_torch(
    tmp_path, needs_onnx, capsys
):
    state = random_checkpoint(DEFINITION, prefix=2)
    torch.save({"model": state, "args": argparse.Namespace(epochs=300)}, tmp_path / "authors.pth")
    model = str(tmp_path / "model")
    arguments = ["--network-def", repr(DEFINITION), "--out", model]
    assert main(["import-official", str(tmp_path / "authors.pth"), *arguments]) == 0
    assert main(["export", model, "--format", "onnx", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["worst_error"] < 1e-5

    content = Path(written["path"]).read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content  # no paths of this machine
    path = packages(tmp_path / "packages", "onnxruntime", "numpy")
    for batch in (1, 5):
        generator = torch.Generator().manual_seed(batch)
        images = torch.randn(batch, 3, 56, 56, generator=generator)
        np.save(tmp_path / "images.npy", images.numpy())
        files = (path, written["path"], tmp_path / "images.npy", tmp_path / "logits.npy")
        command = [sys.executable, "-I", "-S", "-c", ELSEWHERE, *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        heads = oracle_logits(state, DEFINITION, images)
        expected = (heads["class"] + heads["distillation"]) / 2
        found = torch.from_numpy(np.load(tmp_path / "logits.npy"))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_torch_export_runs_where_this_package_is_not(tmp_path, capsys):
    model = small_model(tmp_path / "model")
    assert main(["export", str(model), "--format", "torch.export"]) == 0
    assert "within" in capsys.readouterr().err
    images = torch.randn(2, 3, 16, 16)
    torch.save(images, tmp_path / "images.pt")
    files = (model / "model.pt2", tmp_path / "images.pt", tmp_path / "logits.pt")
    command = [sys.executable, "-I", "-c", WITHOUT_US, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        expected = load_model(model)(images)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, atol=1e-6, rtol=0)
    operators = {
        str(node.target).partition(".")[0]
        for node in torch.export.load(files[0]).graph.nodes
        if node.op == "call_function"
    }
    assert operators <= {"aten", "<built-in function getitem>"}


def test_a_file_that_computes_something_else_is_never_written(tmp_path, monkeypatch):
    model = small_model(tmp_path / "model")
    network = load_model(model)
    off = Format(
        suffix=".off",
        write=lambda network, facts, path: path.write_text("off"),
        read=lambda path: lambda images: network(images) * 1.001,
    )
    monkeypatch.setitem(FORMATS, "off", off)
    with pytest.raises(InputError, match=r"differs from eager by 0.001 .* nothing was written"):
        export_model(model, "off")
    assert not list(model.glob("*.off*"))


def test_not_a_number_counts_as_the_worst():
    model = create_model(SPACES["digits"].smallest).eval()
    nothing = export.worst_error(model, lambda images: torch.full((len(images), 10), torch.nan))
    assert not nothing <= 1e9


def test_what_cannot_be_exported_is_one_sentence(tmp_path, capsys, monkeypatch):
    model = str(small_model(tmp_path / "there"))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("vitresnas.models.to_onnx.NEEDED", ("onnxruntime", "no_such_package"))
    for arguments, sentence in (
        ([str(tmp_path), "--format", "torch-export"], "holds no finished model"),
        ([model, "--format", "tflite"], "invalid choice: 'tflite'"),
        ([model], "the following arguments are required: --format"),
        ([model, "--format", "onnx"], "exporting to onnx needs no_such_package: run `pip install"),
        (
            [model, "--format", "torch-export", "--out", str(tmp_path / "file" / "x")],
            "cannot write",
        ),
    ):
        assert main(["export", *arguments]) == 2
        printed = capsys.readouterr().err
        assert sentence in printed and len(printed.splitlines()) == 1
    with pytest.raises(InputError, match="format is 'tflite': use torch-export or onnx"):
        export_model(model, "tflite")
