"""python -m vitresnas.search, end to end: files, verdicts, exit codes, resuming, refusals."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from vitresnas.models.model_directory import load_model, read_card
from vitresnas.search import SearchResult
from vitresnas.search.__main__ import main, summary
from vitresnas.search.best import main as best
from vitresnas.search.constraint import Target
from vitresnas.search.job import SearchRequest, create_job
from vitresnas.space import Architecture, AttentionOperation, macs
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import save_supernet
from vitresnas.verify import main as verify


def honest(operation):
    return 0.05 + operation.macs / 2e6


TIMED = {"best", "verdict", "rounds", "largest", "seconds", "environment", "test_accuracy", "files"}


def timeless(document):
    """A result without what a clock may change."""
    return {name: value for name, value in document.items() if name not in TIMED}


@pytest.fixture(scope="module")
def searched(search_kit, tmp_path_factory):
    """One finished search that asks for little, so that this machine surely meets it."""
    out = tmp_path_factory.mktemp("searched") / "out"
    command = [sys.executable, "-m", "vitresnas.search", *search_kit.arguments]
    command += ["--throughput-target", "0.7x", "--out", str(out), "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return out, json.loads(found.stdout), found.stderr


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
    arguments = [*search_kit.arguments, "--throughput-target", "0.7x", "--json"]
    assert main([*arguments, "--out", str(tmp_path / "again")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert timeless(again) == timeless(document)


def test_a_finished_search_is_read_and_not_done_again(searched, search_kit, capsys):
    out, document, _ = searched
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    arguments = [*search_kit.arguments, "--throughput-target", "0.7x", "--json"]
    assert main([*arguments, "--out", str(out)]) == 0
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
    arguments = [*search_kit.arguments, "--throughput-target", "0.7x", "--out", str(out), *change]
    assert main(arguments) == 2
    complaint = capsys.readouterr().err
    assert named in complaint and "--out" in complaint
    assert (out / "search_result.json").read_bytes() == before


def wait_for_lines(log, count, process):
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_bytes().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def search_command(search_kit, out):
    command = [sys.executable, "-m", "vitresnas.search", *search_kit.arguments]
    return [*command, "--throughput-target", "0.7x", "--out", str(out), "--json"]


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

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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


def test_a_winner_that_misses_exits_4_and_writes_its_result(search_kit, tmp_path, capsys):
    # A table that promises wonders of narrow attention: nothing real is 20 times faster.
    def wishful(operation):
        return 5.0 if isinstance(operation, AttentionOperation) and operation.heads > 2 else 0.01

    table = search_kit.write_table("wishful.json", price=wishful)
    arguments = [*search_kit.arguments, "--latency-table", table, "--throughput-target", "20x"]
    arguments += ["--compare", "test_resnet@32"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "missed"
    assert 1 <= len(document["rounds"]) <= 3
    (beside,) = document["compared"]
    low, high = beside["measured_relative_interval_95"]
    assert beside["name"] == "test_resnet" and low <= beside["measured_relative"] <= high
    assert document["best"]["measured_relative_interval_95"][0] < 20
    assert read_card(tmp_path / "out" / "model")["verdict"] == "missed"


@pytest.mark.parametrize("target", ["1000x", "1e9"])
def test_a_target_out_of_reach_exits_3_and_names_the_range(search_kit, tmp_path, capsys, target):
    out = tmp_path / "out"
    arguments = [*search_kit.arguments, "--throughput-target", target, "--out", str(out)]
    assert main(arguments) == 3
    complaint = capsys.readouterr().err
    assert "the reachable range is" in complaint and "x the largest network" in complaint
    assert not out.exists()


def test_a_constraint_that_no_network_keeps_is_refused_before_anything_is_made(
    search_kit, tmp_path, capsys
):
    # Nothing is there to search with, and the complaint is not about that.
    arguments = [*search_kit.arguments, "--supernet", "/nowhere", "--latency-table", "/nowhere"]
    code, complaint = refusal(capsys, [*arguments, "--constraint", "macs=1"], tmp_path)
    assert code == 3 and "keeps macs <= 1 " in complaint and "they reach from" in complaint


@pytest.mark.parametrize("target", ["0", "-1", "abc", "nan", "inf", "0x"])
def test_a_target_that_is_no_speed_exits_2_in_one_sentence(tmp_path, capsys, target):
    assert main([f"--throughput-target={target}", "--out", str(tmp_path / "out")]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ") and len(complaint.splitlines()) == 1
    assert repr(target) in complaint and not (tmp_path / "out").exists()


def test_a_target_that_everything_meets_says_so_and_goes_on(searched):
    _, document, progress = searched
    assert "every network is predicted to reach 0.7x" in progress
    assert document["verdict"] == "met"


def refusal(capsys, arguments, tmp_path):
    code = main([*arguments, "--throughput-target", "1x", "--out", str(tmp_path / "out")])
    complaint = capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in complaint
    return code, complaint.splitlines()[-1]


def test_a_super_network_of_another_space_is_refused(search_kit, tmp_path, capsys):
    other = search_kit.space.with_data(classes=7)
    save_supernet(Supernet(other), tmp_path / "supernet", {})
    arguments = [*search_kit.arguments, "--supernet", str(tmp_path / "supernet")]
    code, complaint = refusal(capsys, arguments, tmp_path)
    assert code == 2 and other.id in complaint and search_kit.space.id in complaint


def test_a_super_network_trained_on_other_images_is_refused(search_kit, tmp_path, capsys):
    card = {"data": {"name": "photos", "id": "abc123"}}
    save_supernet(Supernet(search_kit.space), tmp_path / "supernet", card)
    arguments = [*search_kit.arguments, "--supernet", str(tmp_path / "supernet")]
    code, complaint = refusal(capsys, arguments, tmp_path)
    assert code == 2 and "photos, abc123" in complaint and "hold-out" in complaint


def test_a_super_network_that_is_not_there_is_refused(search_kit, tmp_path, capsys):
    arguments = [*search_kit.arguments, "--supernet", str(tmp_path / "nowhere")]
    code, complaint = refusal(capsys, arguments, tmp_path)
    assert code == 2 and "holds no finished super-network" in complaint


@pytest.mark.parametrize(
    ("changes", "options", "named"),
    [
        ({"device": "Abacus 3000"}, [], "Abacus 3000"),
        ({"runtime": "cuda-graph"}, ["--runtime", "eager"], "cuda-graph"),
        ({"batch_size": 4}, ["--batch-size", "8"], "batch 4"),
        ({"space_id": "0" * 12}, [], "0" * 12),
    ],
)
def test_a_table_of_another_device_runtime_or_space_is_refused(
    search_kit, tmp_path, capsys, changes, options, named
):
    table = search_kit.write_table("other.json", **changes)
    arguments = [*search_kit.arguments, "--latency-table", table, *options]
    code, complaint = refusal(capsys, arguments, tmp_path)
    assert code == 2 and named in complaint


def test_the_winner_is_proved_in_the_table_s_runtime(search_kit, tmp_path, capsys, compilations):
    table = search_kit.write_table("compiled.json", runtime="compile", threads=1)
    arguments = [*search_kit.arguments, "--latency-table", table, "--runtime", "compile"]
    arguments += ["--throughput-target", "1.05x", "--out", str(tmp_path / "out"), "--json"]
    code = main(arguments)
    document = json.loads(capsys.readouterr().out)
    assert (code, document["verdict"]) in {(0, "met"), (4, "missed")}  # planted prices
    assert document["target"]["runtime"] == "compile"
    assert len(compilations) > 10 and document["rounds"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--constraint", "memory=5"],
        ["--constraint", "macs"],
        ["--constraint", "throughput=100"],
        ["--objectives", "score,macs"],
        ["--strategy", "nsga2", "--objectives", "score,wisdom"],
        ["--strategy", "nsga2", "--objectives", "score,energy"],
        ["--constraint", "macs=1M", "--constraint", "macs=2M"],
        ["--batch-size", "0"],
        ["--seed", "-1"],
        ["--proof-seconds", "0"],
        ["--space", "nowhere"],
        ["--data", "/nowhere"],
        ["--latency-table", "/nowhere.json"],
        ["--latency-table", "abacus-3000"],
        ["--compare", "deit_smal_patch16_224"],
    ],
)
def test_bad_arguments_are_one_sentence_and_exit_2(search_kit, tmp_path, capsys, arguments):
    code, complaint = refusal(capsys, [*search_kit.arguments, *arguments], tmp_path)
    assert code == 2 and complaint.startswith("error: ")


def test_a_space_without_a_recipe_names_the_command_that_trains_it(search_kit, tmp_path, capsys):
    arguments = list(search_kit.arguments)
    position = arguments.index("--supernet")
    del arguments[position : position + 2]
    code, complaint = refusal(capsys, arguments, tmp_path)
    assert code == 2 and "vitresnas.train" in complaint and "--supernet" in complaint


def test_constraints_on_macs_and_parameters_are_kept(search_kit, tmp_path, capsys):
    table = search_kit.write_table("foreign.json", device="Abacus 3000")  # spares the timing
    arguments = [*search_kit.arguments, "--latency-table", table, "--accept-foreign-table"]
    arguments += ["--constraint", "macs=0.5M", "--constraint", "parameters=40k"]
    arguments += ["--throughput-target", "0.7x", "--json"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    history = json.loads(capsys.readouterr().out)["history"]
    assert history and max(row["macs"] for row in history) <= 5e5
    assert max(row["parameters"] for row in history) <= 4e4


def test_every_constraint_is_measured_again_and_has_a_verdict(search_kit, tmp_path, capsys):
    table = search_kit.write_table("two.json", batch_1=True)
    arguments = [*search_kit.arguments, "--latency-table", table, "--batch-size", "8"]
    arguments += ["--constraint", "throughput=0.7x", "--constraint", "latency_batch_1=10s"]
    arguments += ["--constraint", "peak_memory=1GB", "--constraint", "macs=0.5M"]
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in document["best"]["checks"]}
    assert set(checks) == {"throughput", "latency_batch_1", "peak_memory", "macs"}
    assert {check["verdict"] for check in checks.values()} == {document["verdict"]} == {"met"}
    assert checks["latency_batch_1"]["interval_95"][0] > 0
    assert 0 < checks["peak_memory"]["measured"] < 1e9
    assert checks["macs"]["measured"] == document["best"]["macs"] <= 5e5
    assert read_card(out / "model")["checks"] == document["best"]["checks"]
    # What the table tells is kept of every candidate, so that other bounds need no other search.
    costs = {"latency", "latency_batch_1", "peak_memory"}
    assert all(set(row["costs"]) == costs for row in document["history"])
    bound = sorted(row["costs"]["peak_memory"] for row in document["history"])[50]
    assert best([str(out), "--constraint", f"peak_memory={bound}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["best"]
    kept = [row for row in document["history"] if row["costs"]["peak_memory"] <= bound]
    least = min(kept, key=lambda row: (row["negative_log_likelihood"], row["id"]))
    assert found["id"] == least["id"]


def test_fine_tuning_the_best_finalists_decides_between_them(
    searched, search_kit, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = [*search_kit.arguments, "--throughput-target", "0.7x", "--out", str(out), "--json"]
    arguments += ["--log", str(searched[0] / "evaluations.jsonl")]
    assert main([*arguments, "--finetune-top", "2", "--finetune-epochs", "1"]) == 0
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


def test_constraints_that_contradict_each_other_exit_3_with_what_is_in_reach(
    search_kit, tmp_path, capsys
):
    # Narrow attention is slow here, so the smallest networks are not the fastest.
    def odd(operation):
        narrow = isinstance(operation, AttentionOperation) and operation.heads < 4
        return 5.0 if narrow else honest(operation)

    table = search_kit.write_table("odd.json", price=odd)
    smallest = macs(search_kit.space.smallest)
    arguments = [*search_kit.arguments, "--latency-table", table, "--throughput-target", "1.1x"]
    arguments += ["--constraint", f"macs={1.01 * smallest}", "--out", str(tmp_path / "out")]
    assert main(arguments) == 3
    complaint = capsys.readouterr().err
    assert "with the other bounds kept" in complaint and "macs reaches from" in complaint
    assert len(complaint.splitlines()) == 1 and not (tmp_path / "out").exists()


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


def test_a_folder_that_cannot_be_written_is_one_sentence(search_kit, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "search"
    arguments = [*search_kit.arguments, "--throughput-target", "0.7x", "--out", str(out)]
    assert main(arguments) == 2
    assert "error: " in capsys.readouterr().err


def test_two_strategies_share_a_log_and_a_log_of_another_super_network_is_refused(
    search_kit, tmp_path, capsys
):
    table = search_kit.write_table("foreign.json", device="Abacus 3000")  # spares the timing
    log = tmp_path / "shared.jsonl"
    arguments = [*search_kit.arguments, "--latency-table", table, "--accept-foreign-table"]
    arguments += ["--throughput-target", "0.7x", "--log", str(log), "--json"]
    for strategy in ("random", "nsga2"):
        assert main([*arguments, "--strategy", strategy, "--out", str(tmp_path / strategy)]) == 0
        document = json.loads(capsys.readouterr().out)
        assert len(document["history"]) == 312
        assert document["settings"]["strategy"]["name"] == strategy
        assert not (tmp_path / strategy / "evaluations.jsonl").exists()
    ids = [json.loads(line)["id"] for line in log.read_text().splitlines()[1:]]
    assert len(ids) == len(set(ids)) > 312

    torch.manual_seed(1)
    save_supernet(Supernet(search_kit.space), tmp_path / "other", {"recipe": "none"})
    before = log.read_bytes()
    arguments += ["--supernet", str(tmp_path / "other")]
    assert main([*arguments, "--out", str(tmp_path / "refused")]) == 2
    assert "holds scores of supernet" in capsys.readouterr().err
    assert log.read_bytes() == before


def test_nsga2_makes_a_front_over_what_it_is_asked_for(search_kit, tmp_path, capsys):
    table = search_kit.write_table("foreign.json", device="Abacus 3000")
    arguments = [*search_kit.arguments, "--latency-table", table, "--accept-foreign-table"]
    arguments += ["--throughput-target", "0.7x", "--strategy", "nsga2", "--json"]
    arguments += ["--objectives", "score,peak_memory,macs", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["id"]: row for row in document["history"]}
    point = {
        i: (row["negative_log_likelihood"], row["costs"]["peak_memory"], row["macs"])
        for i, row in rows.items()
    }
    for identifier in document["pareto"]:
        for other in point.values():
            better = all(a <= b for a, b in zip(other, point[identifier], strict=True))
            assert not better or other == point[identifier]


@pytest.fixture
def one_core():
    """Another device than this one: the same machine with a single core."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("needs two cores, to be another device with one")
    os.sched_setaffinity(0, {min(cores)})
    yield lambda: os.sched_setaffinity(0, cores)
    os.sched_setaffinity(0, cores)


def test_what_a_foreign_table_left_unproven_is_completed_on_its_device(
    search_kit, tmp_path, capsys, one_core
):
    out, back_home = tmp_path / "out", one_core
    arguments = [*search_kit.arguments, "--accept-foreign-table"]  # a table of all cores
    arguments += ["--throughput-target", "0.7x", "--out", str(out), "--compare", "test_resnet@32"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("unproven: 0.7x") and "not timed" in printed.out
    assert "cores there and" in printed.out and f"vitresnas verify {out}" in printed.err
    before = SearchResult.load(out / "search_result.json")
    assert before.verdict == "unproven" and not before.rounds and before.best.speed is None
    assert before.table_difference[0].field == "device"

    assert verify([str(out)]) == 0  # here it is met, which proves nothing about that device
    assert "stays unproven: it asks for device" in capsys.readouterr().err
    assert SearchResult.load(out / "search_result.json") == before

    back_home()
    picture = (out / "search.png").read_bytes()
    assert verify([str(out)]) == 0
    assert "was unproven and is met now" in capsys.readouterr().err
    after = SearchResult.load(out / "search_result.json")
    assert after.verdict == "met" and after.best.speed and after.largest.speed
    assert after.history == before.history and after.best.candidate == before.best.candidate
    assert after.compared[0].speed and after.environment["searched_on"]
    assert (out / "search.png").read_bytes() != picture
    assert read_card(out / "model")["compared"] == [after.compared[0].to_json()]


def test_a_shipped_table_is_taken_by_name_and_its_difference_told(tmp_path, one_core):
    target = Target.parse("2x")
    job = create_job(SearchRequest(target, latency_table="cpu-xeon-2core", out=tmp_path))
    assert job.foreign and job.table.condition.space_id == job.space.id
    device = job.difference[0]
    assert device.field == "device" and str(device.table).endswith("2 cores")
    assert str(device.here).endswith("1 cores")
