"""`bench/supernet_step.py` from end to end on a toy space."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.supernet.conftest import toy_space
from vitresnas.files import read_json
from vitresnas.space import macs

SCRIPT = Path(__file__).parents[2] / "bench" / "supernet_step.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supernet_step", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_path_is_timed_on_the_same_draws(bench, tmp_path, capsys):
    toy_space().save(tmp_path / "space.json")
    options = ["--space", str(tmp_path / "space.json"), "--batch-size", "4", "--groups", "2"]
    options += ["--profile", "fused"]
    out = tmp_path / "step.json"
    assert bench.main([*options, "--rounds", "2", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert read_json(out, "bench") == printed
    assert [row["path"] for row in printed["rows"]] == list(bench.CPU_PATHS)
    drawn = [macs(a) for draw in bench.committed_draws(toy_space(), 2) for a in draw]
    share = sum(drawn) / len(drawn) / macs(toy_space().largest)
    for row in printed["rows"]:
        assert row["active_share"] == (1.0 if row["path"] == "dense" else pytest.approx(share))
        assert [len(draw) for draw in row["milliseconds_samples"]] == [2] * 16
        assert 0 < row["milliseconds_min"] and row["peak_bytes"] is row["launches"] is None
    assert 0 < sum(entry["share"] for entry in printed["profile"]["fused"]) <= 1.001
    fastest = {row["path"]: row["milliseconds_min"] for row in printed["rows"]}
    expected = fastest["sliced"] / fastest["dense"] / share
    assert printed["summary"]["sliced_over_active_dense"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--batch-size", "6", "--groups", "4"], "batch size 6 cannot be divided into 4 equal"),
        (["--rounds", "0"], "rounds is 0: use at least 1"),
        (["--device", "gpu"], "device is 'gpu': use auto, cpu, cuda"),
        (["--device", "cuda:99"], "device is 'cuda:99' and torch sees"),
        (["--paths", "fused-graph"], "replays a CUDA graph: use --device cuda"),
        (["--paths", "dense", "--profile", "fused"], "--profile names fused: add it to --paths"),
        (["--space", "huge"], "there is no space 'huge'"),
    ],
)
def test_bad_input_is_one_sentence(bench, capsys, options, sentence):
    assert bench.main(options) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and len(printed.splitlines()) == 1
