"""python -m vitresnas.search, end to end: one search, its files, repeated, killed and continued."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from PIL import Image

from tests.commands.conftest import Kit
from vitresnas.models.model_directory import load_model, read_card
from vitresnas.search import SearchResult
from vitresnas.search.__main__ import main
from vitresnas.search.summary import summary
from vitresnas.space import Architecture
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import save_supernet

TIMED = {"best", "verdict", "rounds", "largest", "seconds", "environment", "test_accuracy", "files"}


def timeless(document):
    """A result without what a clock may change."""
    return {name: value for name, value in document.items() if name not in TIMED}


@pytest.fixture(scope="module")
def searched(search_kit, tmp_path_factory):
    """One finished search that asks for little, so that this machine surely meets it."""
    out = tmp_path_factory.mktemp("searched") / "out"
    command = search_command(search_kit, out)
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return out, json.loads(found.stdout), found.stderr


def search_arguments(search_kit, out):
    return [*search_kit.arguments, "--throughput-target", "0.7x", "--out", str(out), "--json"]


def search_command(search_kit, out):
    return [sys.executable, "-m", "vitresnas.search", *search_arguments(search_kit, out)]


def test_a_met_target_exits_0_and_prints_one_json_document(searched):
    _, document, progress = searched
    assert document["verdict"] == "met"
    assert document["best"]["measured_relative_interval_95"][0] >= 0.7
    assert len({row["id"] for row in document["history"]}) == len(document["history"]) >= 300
    assert document["evaluated_images"] == 300 * len(document["history"])
    assert 0 <= document["test_accuracy"] <= 1
    assert {"search", "proof", "total"} <= document["seconds"].keys()
    assert "finalists" in progress


def test_every_file_is_there_and_they_agree(searched):
    out, document, _ = searched
    assert all((out / path).exists() for path in document["files"].values())
    result = SearchResult.load(out / "search_result.json")
    written = json.loads(json.dumps(result.to_json()))
    assert {**written, "files": document["files"]} == document
    winner = result.best.candidate.architecture
    assert Architecture.load(out / "architecture.json") == winner
    assert load_model(out / "model").architecture == winner
    card = read_card(out / "model")
    assert card["verdict"] == "met" and card["test"]["accuracy"] == document["test_accuracy"]
    # The extracted network scores what its slice of the super-network scored.
    assert card["holdout"]["negative_log_likelihood"] == pytest.approx(
        document["best"]["negative_log_likelihood"], abs=1e-5
    )


def test_the_same_files_and_seed_repeat_history_selected_and_front(
    searched, search_kit, tmp_path, capsys
):
    _, document, _ = searched
    assert main(search_arguments(search_kit, tmp_path / "again")) == 0
    again = json.loads(capsys.readouterr().out)
    assert timeless(again) == timeless(document)


def test_a_finished_search_is_read_and_not_done_again(searched, search_kit, capsys):
    out, document, _ = searched
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    assert main(search_arguments(search_kit, out)) == 0
    assert json.loads(capsys.readouterr().out) == document
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    assert after == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--throughput-target", "0.8x"], "target '0.7x', this command's is '0.8x'"),
        (["--seed", "1"], "seed 0, this command's is 1"),
        (["--constraint", "macs=2M"], "constraints []"),
        (["--compare", "resnet18"], "compare"),
    ],
)
def test_a_folder_of_another_search_is_refused_by_the_setting_that_differs(
    searched, search_kit, capsys, change, named
):
    out, _, _ = searched
    before = (out / "search_result.json").read_bytes()
    assert main([*search_arguments(search_kit, out), *change]) == 2
    complaint = capsys.readouterr().err
    assert named in complaint and "--out" in complaint
    assert (out / "search_result.json").read_bytes() == before


def wait_for_lines(log, count, process):
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_bytes().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_full_disk_is_one_sentence_and_the_search_continues(searched, search_kit, tmp_path):
    _, document, _ = searched
    command = search_command(search_kit, tmp_path / "full")

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_disk)
    assert full.returncode == 2
    assert "no space left" in full.stderr and "Traceback" not in full.stderr
    found = subprocess.run(command, capture_output=True)
    assert found.returncode == 0, found.stderr
    assert timeless(json.loads(found.stdout)) == timeless(document)


@pytest.mark.distributed
def test_two_processes_of_torchrun_come_to_the_history_of_one(searched, search_kit, tmp_path):
    _, document, _ = searched
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, *search_command(search_kit, tmp_path / "out")[1:]]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert timeless(json.loads(found.stdout)) == timeless(document)
    assert "finalists" in found.stderr


def test_ctrl_c_and_kill_9_continue_to_the_same_history(searched, search_kit, tmp_path):
    _, document, _ = searched
    out = tmp_path / "broken"
    command, log = search_command(search_kit, out), out / "evaluations.jsonl"

    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background are deaf to Ctrl-C, and so would be what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_lines(log, 80, process)
    process.send_signal(signal.SIGINT)
    printed = process.communicate()
    assert process.returncode == 130 and printed[0] == ""
    assert printed[1].splitlines()[-1].startswith("interrupted: run the same command again")

    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    wait_for_lines(log, 160, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    logged = log.read_bytes().rpartition(b"\n")[0].splitlines()

    found = subprocess.run(command, capture_output=True, check=True)
    assert timeless(json.loads(found.stdout)) == timeless(document)
    after = log.read_bytes().splitlines()
    assert after[: len(logged)] == logged
    ids = [json.loads(line)["id"] for line in after[1:]]  # the first says what they are of
    assert len(ids) == len(set(ids))


def test_a_target_that_everything_meets_says_so_and_goes_on(searched):
    _, document, progress = searched
    assert "every network is predicted to reach 0.7x" in progress
    assert document["verdict"] == "met"


def test_fine_tuning_the_best_finalists_decides_between_them(
    searched, search_kit, tmp_path, capsys
):
    out = tmp_path / "out"
    log = searched[0] / "evaluations.jsonl"
    tuning = ["--finetune-top", "2", "--finetune-epochs", "1", "--log", str(log)]
    assert main([*search_arguments(search_kit, out), *tuning]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["history"] == searched[1]["history"]
    tuned = {row["id"]: row["negative_log_likelihood"] for row in document["fine_tuned"]}
    kept = [f for f in document["rounds"][-1]["finalists"] if f["checks"][0]["verdict"] == "met"]
    ranked = sorted(kept, key=lambda row: (row["negative_log_likelihood"], row["id"]))
    assert list(tuned) == [row["id"] for row in ranked[:2]]
    assert document["best"]["id"] == min(tuned, key=lambda identifier: tuned[identifier])
    # An untrained super-network: any training helps, and the model beside the result has it.
    assert all(tuned[row["id"]] < row["negative_log_likelihood"] for row in ranked[:2])
    card = read_card(out / "model")
    assert card["kind"] == "sub-network, fine-tuned"
    assert card["holdout"]["negative_log_likelihood"] == pytest.approx(min(tuned.values()))
    assert card["test"]["accuracy"] == document["test_accuracy"]


def test_fine_tuning_allows_as_many_unreadable_images_as_the_super_network_did(
    search_kit, tmp_path
):
    photos = tmp_path / "photos"
    for number in range(60):
        for name, grey in (("dark", number), ("light", 255 - number)):
            (photos / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (grey, grey, grey)).save(photos / name / f"{number}.png")
    (photos / "dark" / "7.png").write_bytes(b"broken")
    kit = Kit(tmp_path, search_kit.space.with_data(classes=2))
    kit.space.save(tmp_path / "space.json")
    kit.write_table()
    card = {"run": {"unreadable_share": 0.1}}
    save_supernet(Supernet(kit.space), tmp_path / "supernet", card)
    command = [*search_arguments(kit, tmp_path / "out"), "--data", str(photos), "--candidates", "8"]
    assert main([*command, "--finetune-top", "1", "--finetune-epochs", "1"]) in (0, 4)
    assert SearchResult.load(tmp_path / "out" / "search_result.json").fine_tuned


def test_accuracies_are_told_class_by_class(searched):
    _, document, _ = searched
    found = document["per_class"]
    assert sum(found["holdout_images"]) == 300 and len(found["names"]) == 10
    best = found["holdout_accuracy"][document["best"]["id"]]
    rows = zip(best, found["holdout_images"], strict=True)
    mean = sum(right * count for right, count in rows) / 300
    assert mean == pytest.approx(document["best"]["score"], abs=1 / 300)
    rows = zip(found["test_accuracy"], found["test_images"], strict=True)
    mean = sum(right * count for right, count in rows) / sum(found["test_images"])
    assert mean == pytest.approx(document["test_accuracy"])


def test_where_classes_are_of_unequal_size_the_summary_tells_them_apart(searched):
    result = SearchResult.load(searched[0] / "search_result.json")
    assert "by class" not in summary(result)
    rare = {
        **result.per_class,
        "test_images": [3, *([40] * 9)],
        "test_accuracy": [0.0, *([1.0] * 9)],
    }
    told = summary(replace(result, per_class=rare))
    assert "0.9000, mean of 10 classes" in told and "0.0000 of 3 images" in told
