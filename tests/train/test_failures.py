"""Diverged losses, full disks, damaged and foreign files: one sentence, earlier results stay."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.nursery import wait_until
from vitresnas.data import Augmentation, TrainingImages, TrainingLoader, load_data
from vitresnas.data.folder import ImageFiles
from vitresnas.data.load import open_source
from vitresnas.errors import (
    DataError,
    FileFormatError,
    InputError,
    MismatchError,
    TrainingDiverged,
)
from vitresnas.files import read_lines
from vitresnas.space import SearchSpace
from vitresnas.train.checkpoints import load_checkpoint, save_checkpoint, saved_steps
from vitresnas.train.failures import failures_named
from vitresnas.train.objectives import classification
from vitresnas.train.place import Place
from vitresnas.train.run import run, run_identity
from vitresnas.train.run_folder import first_difference
from vitresnas.train.tasks import create_task
from vitresnas.train.trainer import Trainer
from vitresnas.train.watch import Setback

PLACE = Place(torch.device("cpu"), checkpoint_seconds=0)


def test_a_diverging_run_names_step_rate_and_cure(toy_retrain, tmp_path):
    recipe = replace(
        toy_retrain, learning_rate=1e30, warmup_learning_rate=1e30, clip_gradient=0.0, average=0.0
    )
    with pytest.raises(TrainingDiverged, match=r"loss of step \d+ is (nan|inf).*--learning-rate"):
        run(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_run_without_a_good_step_ends(toy_retrain, tmp_path, capsys):
    recipe = replace(
        toy_retrain, learning_rate=1e30, clip_gradient=0.0, average=0.0, epochs=1, batch_size=1000
    )
    with pytest.raises(TrainingDiverged, match="every step of epoch 1 went wrong"):
        run(recipe, tmp_path / "run", device="cpu")
    assert re.search(r"after epoch 1 .* scores (nan|inf) on the hold-out", capsys.readouterr().err)
    assert not (tmp_path / "run" / "model.safetensors").exists()


class Spoiled:
    """The usual loss, but that of some steps (by the order of their first coming) is spoiled."""

    def __init__(self, spoil):
        self.spoil, self.first_seen = spoil, {}

    def __call__(self, heads, targets):
        # A step is known by its targets, which mixing makes unlike any other's.
        key = targets["class"].numpy().tobytes()
        step = self.first_seen.setdefault(key, len(self.first_seen))
        losses = classification(heads, targets)
        return {"loss": self.spoil(step, losses["loss"])}


def trained(recipe, data, out, spoil, seconds=0.0):
    task = create_task(recipe, data)
    place = replace(PLACE, checkpoint_seconds=seconds)
    trainer = Trainer(task, data, recipe, place, objective=Spoiled(spoil))
    trainer.fit(out, run_identity(recipe, data, task))
    return trainer


def nan_at(*steps):
    return lambda step, loss: loss * float("nan") if step in steps else loss


def test_a_loss_that_is_no_number_is_rolled_back_and_left_out(
    toy_supernet, digits, tmp_path, capsys
):
    often, rarely = tmp_path / "often", tmp_path / "rarely"
    recipe = replace(toy_supernet, epochs=3)
    trainers = [
        trained(recipe, digits, out, nan_at(39), seconds)
        for out, seconds in ((often, 0.0), (rarely, 1e9))
    ]
    # Where the run went back to makes no difference.
    states = [trainer.task.model.state_dict() for trainer in trainers]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert "loss of step 39 is nan (not finite) at learning" in capsys.readouterr().err
    for out in (often, rarely):
        (record,) = read_lines(out / "rollbacks.jsonl")
        assert (record["first"], record["last"]) == (39, 39)
        left_out = [line["steps_left_out"] for line in read_lines(out / "metrics.jsonl")]
        assert left_out == [0, 0, 1]


def test_trouble_that_comes_again_takes_more_steps_out_and_then_ends_the_run(
    toy_supernet, digits, tmp_path
):
    recipe = replace(toy_supernet, epochs=2, batch_size=16)  # 71 steps in an epoch
    with pytest.raises(TrainingDiverged, match=r"step 73 is nan.*going back 3 times.*--learning"):
        trained(recipe, digits, tmp_path, nan_at(70, 71, 72, 73))
    windows = [(r["first"], r["last"]) for r in read_lines(tmp_path / "rollbacks.jsonl")]
    assert windows == [(70, 70), (64, 71), (9, 72)]
    assert 0 < saved_steps(tmp_path)[-1] <= 73


def test_a_spike_is_told_from_the_usual_noise(toy_supernet, digits, tmp_path, capsys):
    recipe = replace(toy_supernet, epochs=1, batch_size=24)  # 47 steps
    trained(recipe, digits, tmp_path, lambda step, loss: loss * (3 if step == 40 else 1))
    (record,) = read_lines(tmp_path / "rollbacks.jsonl")
    assert record["last"] == 40 and "far above the 2." in record["reason"]


FULL_DISK = """
import resource, sys, torch
from vitresnas.doors import door
from vitresnas.data import Augmentation, Mixing, load_data
from vitresnas.train.objectives import classification
from vitresnas.train.place import Place
from vitresnas.train.recipe import Recipe
from vitresnas.train.run import run_identity
from vitresnas.train.run_folder import claim
from vitresnas.train.tasks import create_task
from vitresnas.train.trainer import Trainer
from pathlib import Path

torch.set_num_threads(1)
calls = 0
def objective(heads, targets):
    global calls
    calls += 1
    if calls == 17 * 2 + 3:  # in the third epoch
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    return classification(heads, targets)

@door
def main(argv=None):
    recipe, out = eval(sys.argv[1]), Path(sys.argv[2])
    data = load_data(recipe.data, image_size=8)
    task = create_task(recipe, data)
    identity = run_identity(recipe, data, task)
    claim(out, identity)
    place = Place(torch.device("cpu"), checkpoint_seconds=0)
    Trainer(task, data, recipe, place, objective).fit(out, identity)
    return 0

sys.exit(main())
"""


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on(toy_supernet, whole, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", FULL_DISK, repr(toy_supernet), str(out)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert child.returncode == 2, child.stderr
    complaint = child.stderr.strip().splitlines()[-1]
    assert complaint.startswith("error: no space left to write") and "step-00000037" in complaint
    assert saved_steps(out) == [0, 36]
    run(toy_supernet, out, device="cpu")
    weights = "model.safetensors"
    assert (out / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_folder_of_another_run_is_refused_by_field(toy_supernet, tmp_path):
    run(replace(toy_supernet, epochs=1), tmp_path, device="cpu")
    weights = (tmp_path / "model.safetensors").read_bytes()
    toy = SearchSpace.load(toy_supernet.space)
    last = replace(toy.stages[-1], hidden=(64, 32, 16))
    replace(toy, stages=(*toy.stages[:-1], last)).save(tmp_path / "narrower.json")
    changes = {
        "epochs": {"epochs": 2},
        "augmentation.shift": {"augmentation": replace(toy_supernet.augmentation, shift=0.2)},
        "space_id": {"space": str(tmp_path / "narrower.json")},
    }
    for field, change in changes.items():
        with pytest.raises(MismatchError, match=f"holds a run with {field} "):
            run(replace(toy_supernet, **{"epochs": 1, **change}), tmp_path, device="cpu")
    assert (tmp_path / "model.safetensors").read_bytes() == weights


def test_images_that_changed_under_their_name_are_told():
    before, now, others = ({"data": name} for name in ("photos (a1)", "photos (b2)", "cats (b2)"))
    assert "files were added, removed or changed" in first_difference(before, now)
    assert "files were added" not in first_difference(before, others)
    assert not first_difference(before, before)


RUN = {"recipe": "toy", "space_id": "a"}


def save(out, steps, weight=None):
    state = {"model": {"weight": torch.ones(3) if weight is None else weight}}
    return save_checkpoint(out, steps, RUN, state)


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


def test_damaged_and_foreign_checkpoints_are_refused_by_name(tmp_path, capsys):
    path = save(tmp_path, 7)
    foreign = r"step-00000007\.ckpt belongs to another run \(space_id 'a', this command's is 'b'\)"
    with pytest.raises(MismatchError, match=foreign):
        load_checkpoint(tmp_path, 7, {**RUN, "space_id": "b"})
    whole = path.read_bytes()

    def refusal(content: bytes) -> str:
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"step-00000007\.ckpt") as caught:
            load_checkpoint(tmp_path, 7, RUN)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is damaged" in refusal(whole[:-100])
    assert "is damaged" in refusal(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    assert "is not a checkpoint" in refusal(b"")
    assert "is not a checkpoint" in refusal(pickle.dumps(Bomb()))
    buffer = io.BytesIO()
    torch.save({"run": Bomb(), "steps": 7}, buffer)
    line = f"vitresnas/checkpoint/2 {hashlib.sha256(buffer.getvalue()).hexdigest()}\n".encode()
    assert "holds pickled code, which is never run" in refusal(line + buffer.getvalue())
    assert capsys.readouterr().out == ""


def test_a_renamed_checkpoint_is_refused_and_other_files_do_not_count(tmp_path):
    path = save(tmp_path, 7)
    (path.parent / "step-00000009.ckpt.bak").write_bytes(b"")
    (path.parent / "step-best.ckpt").write_bytes(b"")
    assert saved_steps(tmp_path) == [7]
    path.rename(path.with_name("step-00000008.ckpt"))
    with pytest.raises(FileFormatError, match=r"step-00000008\.ckpt holds the state after 7 steps"):
        load_checkpoint(tmp_path, 8, RUN)
    with pytest.raises(FileFormatError, match=r"00000007\.ckpt \(No such file.* all processes"):
        load_checkpoint(tmp_path, 7, RUN)


def test_what_a_kill_left_of_a_checkpoint_is_removed(toy_retrain, tmp_path):
    leftover = save(tmp_path, 0).with_name(".step-00000005.ckpt.abcdefgh")
    leftover.parent.joinpath("step-00000000.ckpt").rename(leftover)
    run(replace(toy_retrain, epochs=1), tmp_path, device="cpu")
    assert not leftover.exists()


def open_event_files(out):
    opened = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [path for path in opened if path.is_relative_to(out)]


def test_nothing_stays_open_after_setbacks(toy_supernet, digits, tmp_path):
    with pytest.raises(TrainingDiverged):
        trained(replace(toy_supernet, epochs=1), digits, tmp_path, nan_at(*range(17)))
    assert len(list((tmp_path / "tensorboard").iterdir())) > 1
    assert open_event_files(tmp_path) == []


def test_failures_of_torch_are_named(monkeypatch):
    def named(text, kind=RuntimeError):
        with pytest.raises(Exception) as caught, failures_named():
            raise kind(text)
        return caught.value

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    lost = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"
    assert type(named(lost)) is RuntimeError  # of processes that somebody else has joined
    monkeypatch.setenv("RANK", "3")
    assert str(named(lost)).startswith("process 3 lost contact with another process")
    memory = named("CUDA out of memory. Tried to allocate 2 GiB.\nMore.", torch.OutOfMemoryError)
    assert isinstance(memory, InputError) and "--accumulation" in str(memory)
    assert "not enough memory" in str(named("DefaultCPUAllocator: can't allocate memory: you ..."))
    bus = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
    assert "enlarge /dev/shm" in str(named(bus + "dataloader's workers are out of shared memory."))
    own = "Caught RuntimeError in DataLoader worker process 0.\nTraceback\nRuntimeError: 2 x 3"
    assert str(named(own)) == own  # a fault, not a loss


def test_more_unreadable_images_may_be_allowed_in_the_same_folder(toy_retrain, pets, tmp_path):
    recipe = replace(toy_retrain, data=str(pets), batch_size=4, epochs=1, unreadable_share=0.1)
    first = run(recipe, tmp_path / "run", device="cpu")
    assert run(replace(recipe, unreadable_share=0.2), tmp_path / "run", device="cpu") == first


def test_checkpoints_come_back_and_older_ones_go(tmp_path):
    weight = torch.randn(5)
    for steps in range(0, 301, 10):
        save(tmp_path, steps, weight * steps)
        kept = saved_steps(tmp_path)
        assert len(kept) <= 3 and kept[-1] == steps
        assert kept[0] <= max(0, steps - 64) and kept[0] >= steps - 2 * 64 - 10
    assert torch.equal(load_checkpoint(tmp_path, 300, RUN)["model"]["weight"], weight * 300)


def test_inherited_weights_need_the_same_classes(toy_retrain, toy_supernet, tmp_path, pets):
    supernet = tmp_path / "supernet"
    run(replace(toy_supernet, epochs=1), supernet, device="cpu")
    recipe = replace(toy_retrain, init="inherited", supernet=str(supernet), data=str(pets))
    with pytest.raises(DataError, match="has 10 classes and the data 2"):
        run(recipe, tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"batch_size": 30}, "cannot be divided into 4 equal groups"),
        ({"init": "inherited"}, "add --supernet DIR"),
        ({"dtype": "fp8"}, "use auto, fp32 or bf16"),
        ({"task": "dream"}, "use supernet or retrain"),
    ],
)
def test_impossible_recipes_are_refused(toy_supernet, change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(toy_supernet, **change)


def test_an_image_that_cannot_be_read_is_counted_in_the_log(toy_retrain, pets, tmp_path):
    train = load_data(pets, image_size=8).train
    assert isinstance(train.images, ImageFiles)
    path = train.images.paths[train.indices[0]]
    path.write_bytes(path.read_bytes()[:60].ljust(path.stat().st_size, b"\0"))
    recipe = replace(toy_retrain, data=str(pets), batch_size=4, unreadable_share=0.1)
    run(recipe, tmp_path / "run", device="cpu")
    counts = [line["unreadable_images"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert counts == [1, 1]


@pytest.mark.parametrize("memory", [True, False])
def test_an_image_that_cannot_be_read_counts_once_however_often_it_is_shown(pets, memory, capsys):
    for number in range(4, 20):
        (pets / "cat" / f"{number}.png").unlink()
    source = open_source(pets)
    (pets / "cat" / "1.png").write_bytes(b"no")
    options = {} if memory else {"budget": 0}
    train = TrainingImages(
        source.splits["train"], np.arange(24), 8, unreadable_share=0.1, **options
    )
    loader = TrainingLoader(
        train, Augmentation(), 6, seed=0, device=torch.device("cpu"), sampling="balanced"
    )
    counts = [sum(loader.stand_ins for _ in loader.epoch(epoch)) for epoch in range(2)]
    assert counts == [1, 1]
    assert capsys.readouterr().err.count("1.png") == 1


def reading_children(toy_retrain, nursery, out):
    """A run that has begun, one process of which reads images; both by their ids."""
    recipe = replace(toy_retrain, epochs=50, augmentation=Augmentation(policy="rand-m5"))
    options = "device='cpu', workers=1, checkpoint_seconds=1000"
    child = nursery.start(f"vitresnas.train.run.run({recipe!r}, {str(out)!r}, {options})")
    wait_until(lambda: (out / "metrics.jsonl").exists())
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    wait_until(lambda: children.read_text().split())
    return child, int(children.read_text().split()[0])


def test_a_lost_reader_is_named(toy_retrain, nursery, tmp_path):
    child, reader = reading_children(toy_retrain, nursery, tmp_path)
    os.kill(reader, signal.SIGKILL)
    assert child.wait() != 0
    assert "WorkerLost: a process that reads images is gone" in child.log.read_text()


def test_sigterm_to_all_still_saves_the_step(toy_retrain, nursery, tmp_path):
    child, reader = reading_children(toy_retrain, nursery, tmp_path)
    os.kill(reader, signal.SIGTERM)  # as SLURM does
    child.kill(signal.SIGTERM)
    assert child.wait() != 0
    assert "KeyboardInterrupt" in child.log.read_text()
    assert saved_steps(tmp_path)[-1] >= 17


def test_a_setback_travels_between_processes():
    setback = pickle.loads(pickle.dumps(Setback(7, "the loss is nan")))
    assert (setback.step, str(setback)) == (7, "the loss is nan")
