"""The result file says what the search found, exactly, and refuses what contradicts itself."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vitresnas.errors import FileFormatError
from vitresnas.search import Check, Evolution, Finalist, Round, SearchResult, Speed, search

SMALL = Evolution(initial=6, iterations=1, parents=3, mutants=2, crossovers=2)


@pytest.fixture
def result(digits, formula_score, prices):
    found = search(digits, formula_score, throughput=prices, strategy=SMALL)
    speed = Speed(3000.0, (2900.0, 3050.5), 2.1, (2.05, 2.2), 40, "real-time")
    checks = (
        Check("throughput", "images/s", 2500.0, 2600.0, 3000.0, (2900.0, 3050.5), "timed"),
        Check("macs", "MACs per image", 2e7, 1e7, 1e7, None, "counted"),
        Check("energy", "J per image", 1.0, 0.5, None, None, "nobody counts it here"),
    )
    finalists = (Finalist(found.selected.candidate, speed, checks),)
    return replace(
        found,
        verdict="met",
        best=finalists[0],
        rounds=(Round(2.0, 0.97, finalists),),
        target={"images_per_second": 2000.0, "requested": "2x"},
        seconds={"search": 1.5},
        test_accuracy=0.97,
    )


def test_a_result_round_trips_exactly(result, tmp_path):
    result.save(tmp_path / "search_result.json")
    found = SearchResult.load(tmp_path / "search_result.json")
    assert found == result
    assert found.to_json() == result.to_json()
    first_line = (tmp_path / "search_result.json").read_text().splitlines()[1]
    assert "vitresnas/search_result/5" in first_line


def test_the_fields_that_others_read_are_there(result):
    document = result.to_json()
    best = {
        "architecture",
        "id",
        "score",
        "negative_log_likelihood",
        "predicted_images_per_second",
        "measured_images_per_second",
        "measured_interval_95",
        "macs",
        "parameters",
    }
    assert best <= document["best"].keys() and best <= document["selected"].keys()
    history = {"id", "architecture", "score", "negative_log_likelihood", "parents"}
    assert history | {"predicted_images_per_second"} <= document["history"][0].keys()
    assert {"pareto", "environment", "seed", "evaluated_images", "seconds"} <= document.keys()
    assert document["evaluated_images"] == 10 * len(document["history"])


def test_a_changed_file_is_noticed(result, tmp_path):
    path = tmp_path / "search_result.json"
    result.save(path)
    path.write_text(path.read_text().replace('"met"', '"missed"'))
    with pytest.raises(FileFormatError, match="changed after it was written"):
        SearchResult.load(path)


def break_verdict(document):
    document["verdict"] = "perhaps"


def break_id(document):
    document["history"][0]["id"] = "0" * 12


def break_pareto(document):
    document["pareto"] = ["0" * 12]


def break_twins(document):
    document["history"].append(document["history"][0])


def break_images(document):
    document["evaluated_images"] += 1


def break_interval(document):
    document["best"]["measured_interval_95"] = [2, 1]


def break_unmeasured(document):
    document["best"]["measured_images_per_second"] = None


def add_field(document):
    document["extra"] = 1


def drop_field(document):
    del document["seed"]


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (break_verdict, "verdict"),
        (break_id, "id"),
        (break_pareto, "pareto"),
        (break_twins, "twice"),
        (break_images, "evaluated_images"),
        (break_interval, "measured_interval_95"),
        (break_unmeasured, "without a measured speed"),
        (add_field, "extra"),
        (drop_field, "seed"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(result, harm, complaint):
    document = json.loads(json.dumps(result.to_json()))
    harm(document)
    with pytest.raises(FileFormatError, match=complaint):
        SearchResult.from_json(document)
