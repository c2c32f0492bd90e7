"""Killed and repeated, a run ends where the uninterrupted one ends, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitresnas.errors import MismatchError
from vitresnas.files import read_lines
from vitresnas.train.recipe import Recipe
from vitresnas.train.run import run

TIMES = {"seconds", "images_per_second"}

# The child writes the recipe it was given and trains with a checkpoint after every epoch.
CHILD = """
import sys, torch
from pathlib import Path
from vitresnas.data import Augmentation, Mixing
from vitresnas.train.recipe import Recipe
from vitresnas.train.run import run
torch.set_num_threads(1)
recipe = eval(sys.argv[1])
run(recipe, Path(sys.argv[2]), device="cpu", checkpoint_seconds=0)
"""


def start(recipe: Recipe, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, repr(recipe), str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def metrics(out: Path) -> list[dict[str, object]]:
    return [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in read_lines(out / "metrics.jsonl")
    ]


def assert_equal_runs(out: Path, whole: Path, weights: str = "model.safetensors") -> None:
    assert (out / weights).read_bytes() == (whole / weights).read_bytes()
    assert metrics(out) == metrics(whole)
    epochs = [line["epoch"] for line in metrics(out)]
    assert epochs == list(range(1, len(epochs) + 1))


def wait_for_epochs(child: subprocess.Popen[bytes], out: Path, epochs: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        path = out / "metrics.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= epochs:
            return
        time.sleep(0.005)
    child.kill()
    pytest.fail(f"the run ended or hung before epoch {epochs}: {child.communicate()[1].decode()}")


def test_a_killed_run_ends_like_an_uninterrupted_one(toy_supernet, whole, tmp_path):
    child = start(toy_supernet, tmp_path)
    wait_for_epochs(child, tmp_path, random.randint(1, 2))
    time.sleep(random.uniform(0, 0.3))  # anywhere: in a step, a checkpoint, a line of metrics
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(MismatchError, match="another process is training in"):
        run(toy_supernet, tmp_path, device="cpu")
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    run(toy_supernet, tmp_path, device="cpu")
    assert_equal_runs(tmp_path, whole)


def test_lines_of_epochs_without_a_checkpoint_are_written_again(toy_supernet, whole, tmp_path):
    run(toy_supernet, tmp_path, device="cpu", checkpoint_seconds=0)
    # As if killed in epoch 4, after its line and before its checkpoint, while writing another line.
    (tmp_path / "training_result.json").unlink()
    (tmp_path / "model.safetensors").unlink()
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')
    run(toy_supernet, tmp_path, device="cpu", checkpoint_seconds=0)
    assert_equal_runs(tmp_path, whole)


def test_a_retrained_network_resumes_too(toy_retrain, tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run(toy_retrain, whole, device="cpu")
    run(toy_retrain, torn, device="cpu", checkpoint_seconds=0)
    (torn / "training_result.json").unlink()
    (torn / "model.safetensors").unlink()
    sorted((torn / "checkpoints").iterdir())[-1].unlink()
    run(toy_retrain, torn, device="cpu", checkpoint_seconds=0)
    assert_equal_runs(torn, whole)


def test_a_finished_run_is_read_not_repeated(toy_retrain, tmp_path):
    first = run(toy_retrain, tmp_path / "run", device="cpu")
    weights = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert run(toy_retrain, tmp_path / "run", device="cpu") == first
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == weights
    assert len(read_lines(tmp_path / "run" / "metrics.jsonl")) == toy_retrain.epochs


def test_the_lines_are_json_with_units_in_their_names(toy_retrain, tmp_path):
    run(toy_retrain, tmp_path / "run", device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [17, 34]
    assert {"epoch", "loss", "learning_rate", "seconds", "images_per_second"} <= set(lines[0])
    assert "holdout_network_accuracy" in lines[-1]
