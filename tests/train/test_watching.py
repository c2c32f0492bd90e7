"""A run's folder explains itself; Weights & Biases see it where they are asked to."""

from __future__ import annotations

import importlib.util

import pytest

from vitresnas.files import read_json, read_lines
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


def test_the_command_leaves_curves_and_a_card_that_tells_where_it_ran(toy_space, tmp_path):
    out = tmp_path / "out"
    assert main([*FAST, "--space", str(toy_space), "--out", str(out)]) == 0
    assert "badge finished" in (out / "report.html").read_text()
    card = read_json(out / "supernet_card.json", "supernet_card")
    (process,) = read_lines(out / "processes.jsonl")
    for field in ("commit", "versions", "device"):
        assert card["environment"][field] == process["environment"][field]


@pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="needs wandb: pip install -e '.[watch]'"
)
def test_a_folder_that_cannot_be_written_is_one_sentence_with_wandb_too(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*FAST, "--out", str(tmp_path / "file" / "out"), "--wandb", "p"]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_process_that_goes_back_is_told_of_once(tmp_path):
    for steps in (0, 0):
        MetricLog(tmp_path, steps).close()
    assert len(read_lines(tmp_path / "processes.jsonl")) == 1


FULL = """
import resource
from pathlib import Path
from vitresnas.doors import door
from vitresnas.train.metrics import metric_log

@door
def main(argv=None):
    with metric_log(Path({out!r}), 0) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
        for epoch in range(1, 20):
            log.write({{"epoch": epoch, "step": epoch, **{{f"m{{n}}": 0.5 for n in range(20)}}}})
    return 0

sys.exit(main())
"""


def test_a_disk_that_fills_up_under_tensorboard_is_one_sentence(nursery, tmp_path):
    child = nursery.start(FULL.format(out=str(tmp_path)))
    assert child.wait() == 2
    said = child.log.read_text()
    assert said.startswith(f"error: no space left to write {tmp_path / 'tensorboard'}")
    assert said.count("\n") == 1


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
