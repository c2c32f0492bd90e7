"""A run's folder explains itself; Weights & Biases see it where they are asked to."""

from __future__ import annotations

import importlib.util

import pytest

from vitresnas.files import read_lines
from vitresnas.report import render_report
from vitresnas.train.__main__ import main
from vitresnas.train.metrics import MetricLog

FAST = ["--recipe", "digits-supernet", "--epochs", "1", "--batch-size", "64", "--device", "cpu"]


def test_a_run_tells_who_trained_it_and_has_a_page(whole):
    (process,) = read_lines(whole / "processes.jsonl")
    for field in ("device", "versions", "commit", "date"):
        assert field in process["environment"]
    assert process["command"]
    html = render_report(whole)
    assert "badge finished" in html and "hold-out, largest" in html and "random_1" in html


def test_a_process_that_goes_back_is_told_of_once(tmp_path):
    for steps in (0, 0):
        MetricLog(tmp_path, steps).close()
    assert len(read_lines(tmp_path / "processes.jsonl")) == 1


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_without_wandb_the_flag_tells_how_to_get_it(toy_space, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*FAST, "--space", str(toy_space), "--out", str(out), "--wandb", "p"]) == 2
    printed = capsys.readouterr().err
    assert "run `pip install -e '.[watch]'`" in printed and len(printed.splitlines()) == 1
    assert not out.exists()


def test_wandb_gets_what_tensorboard_gets(toy_space, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra: pip install -e '.[watch]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "out"
    assert main([*FAST, "--space", str(toy_space), "--out", str(out), "--wandb", "p"]) == 0
    (log,) = out.glob("wandb/offline-run-*/*.wandb")
    for name in (b"holdout/largest_accuracy", b"learning_rate", b"digits-supernet"):
        assert name in log.read_bytes()
