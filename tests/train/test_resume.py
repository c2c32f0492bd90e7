"""Killed and repeated, a run ends where the uninterrupted one ends, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.train.nursery import wait_until
from vitresnas.errors import MismatchError
from vitresnas.files import read_lines
from vitresnas.train.checkpoints import saved_steps
from vitresnas.train.recipe import Recipe
from vitresnas.train.result import TrainingResult
from vitresnas.train.run import run

TIMES = {"seconds", "images_per_second"}

# How often the run is killed; the full proof: VITRESNAS_KILLS=20 pytest tests/train/test_resume.py
KILLS = int(os.environ.get("VITRESNAS_KILLS", "3"))


def command(recipe: Recipe, out: Path, checkpoint_seconds: float = 0.0) -> str:
    """Training with a checkpoint after every step, as a piece of Python."""
    options = f"device='cpu', checkpoint_seconds={checkpoint_seconds}"
    return f"vitresnas.train.run.run({recipe!r}, {str(out)!r}, {options})"


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


def test_a_run_killed_at_random_moments_ends_like_an_uninterrupted_one(
    toy_supernet, whole, nursery, tmp_path
):
    result = TrainingResult.load(whole)
    assert result is not None
    out = tmp_path / "killed"
    killed = 0
    while killed < KILLS:
        child = nursery.start(command(toy_supernet, out))
        # Anywhere: in the imports, a step, a checkpoint, a line of metrics, the last files.
        time.sleep(random.uniform(0, 2 * result.seconds / KILLS + 0.5))
        child.kill()
        killed += child.wait() == -signal.SIGKILL
        if (out / "training_result.json").exists():
            assert_equal_runs(out, whole)
            out = tmp_path / f"killed-{killed}"
    child = nursery.start(command(toy_supernet, out))
    assert child.wait() == 0, child.log.read_text()
    assert_equal_runs(out, whole)


def test_a_folder_in_which_a_process_trains_is_refused(toy_supernet, nursery, tmp_path):
    child = nursery.start(command(toy_supernet, tmp_path))
    wait_until(lambda: saved_steps(tmp_path) != [])
    child.kill(signal.SIGSTOP)
    with pytest.raises(MismatchError, match="another process is training in"):
        run(toy_supernet, tmp_path, device="cpu")
    child.kill()
    child.wait()


def test_sigterm_saves_the_step_that_was_reached(toy_supernet, whole, nursery, tmp_path):
    child = nursery.start(command(toy_supernet, tmp_path, checkpoint_seconds=1000))
    wait_until(lambda: (tmp_path / "metrics.jsonl").exists())
    child.kill(signal.SIGTERM)
    assert child.wait() == 1 and "KeyboardInterrupt" in child.log.read_text()
    assert saved_steps(tmp_path)[-1] >= 17
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
