"""python -m vitresnas.search under bounds, objectives and strategies, and the verdicts on them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from vitresnas.models.model_directory import read_card
from vitresnas.search.__main__ import main
from vitresnas.search.best import main as best
from vitresnas.search.check import exit_code
from vitresnas.search.constraint import Target
from vitresnas.search.job import SearchRequest, create_job
from vitresnas.space import AttentionOperation
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import save_supernet


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


def test_the_winner_is_proved_in_the_table_s_runtime(search_kit, tmp_path, capsys, compilations):
    table = search_kit.write_table("compiled.json", runtime="compile", threads=1)
    arguments = [*search_kit.arguments, "--latency-table", table, "--runtime", "compile"]
    arguments += ["--throughput-target", "1.05x", "--out", str(tmp_path / "out"), "--json"]
    code = main(arguments)
    document = json.loads(capsys.readouterr().out)
    assert code == exit_code(document["verdict"])  # planted prices: any verdict
    assert document["target"]["runtime"] == "compile"
    assert len(compilations) > 10 and document["rounds"]


def test_a_margin_is_what_predictions_aim_at_unless_no_network_has_it(search_kit, tmp_path, capsys):
    request = SearchRequest(
        Target.parse("1.5x"),
        space=str(search_kit.folder / "space.json"),
        latency_table=search_kit.folder / "table.json",
        out=tmp_path,
        margin=0.02,
    )
    job = create_job(request)
    assert job.aims[0].bound == pytest.approx(1.02 * job.bound)
    assert job.constraints[0].bound == job.bound
    job = create_job(replace(request, margin=99.0))
    assert job.aims == job.constraints
    assert "no network is predicted to exceed 1.5x by 9900.0%" in capsys.readouterr().err
