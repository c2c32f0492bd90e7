"""Processes side by side: the same training as one process, and it goes on when one is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._C._distributed_c10d import HashStore

from tests.train.nursery import wait_until
from tests.train.test_resume import assert_equal_runs
from vitresnas.data import Augmentation, Mixing
from vitresnas.data.share import Piece, Share
from vitresnas.errors import InputError, WorkerLost
from vitresnas.train.checkpoints import saved_steps
from vitresnas.train.distributed import join
from vitresnas.train.meeting import _invite

pytestmark = pytest.mark.distributed

STEPS = """
from vitresnas.data import load_data
from vitresnas.train.distributed import join
from vitresnas.train.place import Place
from vitresnas.train.tasks import create_task
from vitresnas.train.trainer import Trainer

recipe, out = {recipe!r}, {out!r}
with join() as world:
    data = load_data("digits", image_size=8)
    task = create_task(recipe, data)
    task.model.double()
    trainer = Trainer(task, data, recipe, Place(torch.device("cpu"), world=world))
    losses = []
    for step, batch in zip(range(20), trainer.loader.epoch(0)):
        loss = trainer.train_step(*batch, 0, step)["loss"]
        losses.append(world.total(loss) / world.size)
    if world.leads:
        torch.save({{"losses": torch.stack(losses), **task.model.state_dict()}}, out)
"""


@pytest.mark.parametrize(
    ("sampler", "turns"),
    [("multi-architecture", 1), ("multi-architecture", 2), ("sandwich", 1), ("sandwich", 2)],
)
def test_two_processes_train_like_one_with_the_whole_batch(
    toy_supernet, nursery, tmp_path, sampler, turns
):
    recipe = replace(
        toy_supernet,
        batch_size=32,
        sampler=sampler,
        accumulation=turns,
        drop_path=0.0,
        average=0.0,
        augmentation=Augmentation(),
        mixing=Mixing(),
    )
    alone, together = tmp_path / "alone", tmp_path / "together"
    children = nursery.start_together(STEPS.format(recipe=recipe, out=str(together)), 2)
    children.append(nursery.start(STEPS.format(recipe=recipe, out=str(alone))))
    for child in children:
        assert child.wait() == 0, child.log.read_text()
    expected, found = torch.load(alone), torch.load(together)
    assert expected["losses"].dtype == torch.float64 and len(expected["losses"]) == 20
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9, msg=name)


@pytest.fixture(scope="module")
def arguments(toy_space: Path) -> list[str]:
    """A run of 34 steps in two epochs."""
    shape = ["--epochs", "2", "--batch-size", "64", "--device", "cpu"]
    save = ["--checkpoint-seconds", "0"]
    return ["--recipe", "digits-supernet", "--space", str(toy_space), *shape, *save]


def train(arguments: list[str], out: Path) -> str:
    everything = [*arguments, "--out", str(out)]
    return f"from vitresnas.train.__main__ import main; sys.exit(main({everything}))"


@pytest.fixture(scope="module")
def undisturbed(arguments, nursery, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    for child in nursery.start_together(train(arguments, out), 2):
        assert child.wait() == 0, child.log.read_text()
    return out


def test_two_processes_write_what_one_would(undisturbed):
    names = {path.name for path in undisturbed.iterdir()}
    assert {"model.safetensors", "search_space.json", "training_result.json"} <= names
    assert (undisturbed / "metrics.jsonl").read_text().count("\n") == 2


def test_a_killed_process_is_restarted_by_torchrun(arguments, undisturbed, tmp_path):
    out = tmp_path / "out"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--max-restarts", "1", "--standalone", "-m", "vitresnas.train"]
    agent = subprocess.Popen(
        [*torchrun, *arguments, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: agent.poll() is not None or saved_steps(out)[-1:] > [10])
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    os.kill(max(map(int, children)), signal.SIGKILL)
    try:
        _, complaint = agent.communicate(timeout=300)
    finally:
        agent.kill()
    assert agent.returncode == 0, complaint
    assert "lost contact with another process" in complaint
    assert "Traceback" not in complaint
    assert_equal_runs(out, undisturbed)


def test_sigterm_ends_all_processes_after_their_step(arguments, undisturbed, nursery, tmp_path):
    rarely = [*arguments[:-1], "1000"]  # seconds between checkpoints
    children = nursery.start_together(train(rarely, tmp_path), 2)
    wait_until(lambda: (tmp_path / "metrics.jsonl").exists())  # the first of two epochs is over
    children[1].kill(signal.SIGTERM)
    assert [child.wait() for child in children] == [130, 130]
    assert "interrupted: run the same command again" in children[0].log.read_text()
    assert 17 <= saved_steps(tmp_path)[-1] < 34
    for child in nursery.start_together(train(rarely, tmp_path), 2):
        assert child.wait() == 0, child.log.read_text()
    assert_equal_runs(tmp_path, undisturbed)


def test_a_dry_run_is_timed_together_and_told_once(arguments, nursery, tmp_path):
    few = "from vitresnas.train import dry_run; dry_run.TIMED_STEPS = 2; "
    together = nursery.start_together(few + train([*arguments, "--dry-run"], tmp_path), 2)
    assert [child.wait() for child in together] == [0, 0]
    first, second = (child.log.read_text() for child in together)
    assert first.count("speed ") == first.count("paths ") == 1 and "on 2 processes" in first
    assert "timing" not in second and "images/s" not in second


def test_a_number_of_processes_that_does_not_divide_the_batch(arguments, nursery, tmp_path):
    children = nursery.start_together(train([*arguments, "--batch-size", "66"], tmp_path), 4)
    assert [child.wait() for child in children] == [2, 2, 2, 2]
    said = "".join(child.log.read_text() for child in children)
    assert said.startswith("error: a batch of 66 cannot be divided equally over 4 processes")
    assert said.count("\n") == 1


def assert_one_sentence(children, sentence: str) -> None:
    """All end with exit code 2, and one of them says why."""
    assert [child.wait() for child in children] == [2] * len(children)
    said = "".join(child.log.read_text() for child in children)
    assert sentence in said and said.count("\n") == 1, said


def test_machines_that_see_other_images_are_refused(arguments, nursery, pets, tmp_path):
    others = tmp_path / "others"
    shutil.copytree(pets, others / "pets")
    (others / "pets" / "cat" / "0.png").unlink()
    data = f"{[str(pets), str(others / 'pets')]}[int(os.environ['RANK'])]"
    code = train([*arguments, "--batch-size", "8"], tmp_path / "out")
    code = code.replace("main([", f"main(['--data', {data}, ")
    children = nursery.start_together(code, 2)
    assert_one_sentence(children, "process 1 of this run would train with other files than process")


def test_a_full_disk_ends_all_processes(arguments, nursery, tmp_path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))"
    code = f"import resource; {limit}; {train(arguments, tmp_path / 'out')}"
    assert_one_sentence(nursery.start_together(code, 2), "error: no space left to write")


def test_a_test_image_that_cannot_be_read_is_told_of_before_training(
    arguments, nursery, pets, tmp_path
):
    data = tmp_path / "split"
    for split in ("train", "test"):
        shutil.copytree(pets, data / split)
    (data / "test" / "dog" / "3.png").write_bytes(b"")
    out = tmp_path / "out"
    code = train([*arguments, "--batch-size", "8", "--data", str(data)], out)
    assert_one_sentence(nursery.start_together(code, 2), "3.png is empty (0 bytes)")
    assert saved_steps(out) == []


def test_a_part_of_what_torchrun_tells_is_refused(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(InputError, match=r"process 1 of 2, and LOCAL_WORLD_SIZE is not set"),
        join(),
    ):
        pass


def test_processes_that_never_come_are_named():
    store = HashStore()
    store.set("hello/1", "somebody who is gone")
    with pytest.raises(WorkerLost, match=r"2 of 3 processes did not connect within 0\.1 seconds"):
        _invite(store, 3, patience=0.1)


def test_the_pieces_of_a_batch_are_disjoint_and_whole():
    batch = torch.arange(24)
    shares = [Share(rank, processes=3, turns=2) for rank in range(3)]
    pieces: dict[int, list[int]] = {}
    for share in shares:
        for turn, part in enumerate(share.of_batch(batch).chunk(2)):
            pieces[share.piece(turn).index] = part.tolist()
    assert [pieces[index] for index in range(6)] == batch.view(6, 4).tolist()
    assert [Piece(index, 4).of("abcdefgh") for index in range(4)] == ["ab", "cd", "ef", "gh"]
    assert [Piece(index, 4).of("ab") for index in range(4)] == ["a", "a", "b", "b"]


def test_groups_that_cannot_be_shared_are_refused():
    Share(processes=4).check(batch_size=64, groups=2)
    Share(processes=2, turns=2).check(batch_size=64, groups=16)
    with pytest.raises(InputError, match=r"6 groups of sub-networks .* over 4 processes"):
        Share(processes=4).check(batch_size=48, groups=6)
    with pytest.raises(InputError, match=r"a batch of 64 .* 3 processes times 2 turns"):
        Share(processes=3, turns=2).check(batch_size=64, groups=2)
