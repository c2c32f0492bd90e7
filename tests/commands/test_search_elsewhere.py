"""python -m vitresnas.search with a table of another device than this one."""

from __future__ import annotations

import os

import pytest

from vitresnas.models.model_directory import read_card
from vitresnas.search import SearchResult
from vitresnas.search.__main__ import main
from vitresnas.search.constraint import Target
from vitresnas.search.job import SearchRequest, create_job
from vitresnas.verify.__main__ import main as verify


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
