"""python -m vitresnas.search refuses what cannot work: one sentence, an exit code, no folder."""

from __future__ import annotations

import pytest

from vitresnas.errors import InputError
from vitresnas.search.__main__ import main
from vitresnas.search.constraint import Target
from vitresnas.search.job import SearchRequest
from vitresnas.search.run import run
from vitresnas.search.workers import Link, Workers
from vitresnas.space import AttentionOperation, macs
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import save_supernet

# What is refused before the table is looked for is refused before one is measured.
NO_TABLE = ["--latency-table", "/nowhere"]


def refusal(capsys, arguments, tmp_path):
    code = main([*arguments, "--throughput-target", "1x", "--out", str(tmp_path / "out")])
    complaint = capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in complaint
    return code, complaint.splitlines()[-1]


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


@pytest.mark.parametrize("target", ["1000x", "1e9"])
def test_a_target_out_of_reach_exits_3_and_names_the_range(search_kit, tmp_path, capsys, target):
    out = tmp_path / "out"
    arguments = [*search_kit.arguments, "--throughput-target", target, "--out", str(out)]
    assert main(arguments) == 3
    complaint = capsys.readouterr().err
    assert "the reachable range is" in complaint and "x the largest network" in complaint
    assert not out.exists()


def test_constraints_that_contradict_each_other_exit_3_with_what_is_in_reach(
    search_kit, tmp_path, capsys
):
    # Narrow attention is slow here, so the smallest networks are not the fastest.
    def odd(operation):
        narrow = isinstance(operation, AttentionOperation) and operation.heads < 4
        return 5.0 if narrow else 0.05 + operation.macs / 2e6

    table = search_kit.write_table("odd.json", price=odd)
    smallest = macs(search_kit.space.smallest)
    arguments = [*search_kit.arguments, "--latency-table", table, "--throughput-target", "1.1x"]
    arguments += ["--constraint", f"macs={1.01 * smallest}", "--out", str(tmp_path / "out")]
    assert main(arguments) == 3
    complaint = capsys.readouterr().err
    assert "with the other bounds kept" in complaint and "macs reaches from" in complaint
    assert len(complaint.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_super_network_of_another_space_is_refused(search_kit, tmp_path, capsys):
    other = search_kit.space.with_data(classes=7)
    save_supernet(Supernet(other), tmp_path / "supernet", {})
    arguments = [*search_kit.arguments, "--supernet", str(tmp_path / "supernet"), *NO_TABLE]
    code, complaint = refusal(capsys, arguments, tmp_path)
    assert code == 2 and other.id in complaint and search_kit.space.id in complaint


def test_a_super_network_trained_on_other_images_is_refused(search_kit, tmp_path, capsys):
    card = {"data": {"name": "photos", "id": "abc123"}}
    save_supernet(Supernet(search_kit.space), tmp_path / "supernet", card)
    arguments = [*search_kit.arguments, "--supernet", str(tmp_path / "supernet"), *NO_TABLE]
    code, complaint = refusal(capsys, arguments, tmp_path)
    assert code == 2 and "photos, abc123" in complaint and "hold-out" in complaint


def test_a_super_network_that_is_not_there_is_refused(search_kit, tmp_path, capsys):
    arguments = [*search_kit.arguments, "--supernet", str(tmp_path / "nowhere"), *NO_TABLE]
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
    arguments = [*search_kit.arguments, *NO_TABLE]
    position = arguments.index("--supernet")
    del arguments[position : position + 2]
    code, complaint = refusal(capsys, arguments, tmp_path)
    assert code == 2 and "vitresnas.train" in complaint and "--supernet" in complaint


def test_a_race_is_refused_where_other_processes_would_idle(tmp_path):
    request = SearchRequest(Target.parse("1x"), strategy="guided", out=tmp_path / "out")
    with pytest.raises(InputError, match="guided scores in one process and this search has 3: sta"):
        run(request, nothing_to_train, Workers([Link(1), Link(2)]))
    assert not (tmp_path / "out").exists()


def nothing_to_train(*_):
    raise AssertionError("it is refused before")


def test_a_folder_that_cannot_be_written_is_one_sentence(search_kit, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "search"
    arguments = [*search_kit.arguments, "--throughput-target", "0.7x", "--out", str(out)]
    assert main(arguments) == 2
    assert "error: " in capsys.readouterr().err
