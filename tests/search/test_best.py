"""`vitresnas best`: other bounds are answered out of a finished search."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vitresnas.errors import InputError, UnreachableTarget
from vitresnas.search import Constraint, Evolution, Finalist, Round, Speed, best_under, search
from vitresnas.search.best import main
from vitresnas.space import Architecture

SMALL = Evolution(initial=20, iterations=2, parents=8, mutants=6, crossovers=6)


@pytest.fixture(scope="module")
def result(digits, full_prices, formula_score):
    return search(digits, formula_score, strategy=SMALL, throughput=full_prices)


def test_the_answer_is_the_best_of_those_that_keep_the_bounds(result):
    costs = sorted(candidate.macs for candidate in result.history)
    speeds = sorted(candidate.cost("throughput") for candidate in result.history)
    bounds = (Constraint("macs", costs[30]), Constraint("throughput", speeds[5]))
    kept = [c for c in result.history if c.macs <= costs[30] and c.cost("throughput") >= speeds[5]]
    assert best_under(result, bounds).candidate == min(kept, key=lambda found: found.rank)
    assert best_under(result, ()).candidate == result.selected.candidate


def test_a_finalist_comes_with_its_measured_speed(result):
    speed = Speed(3000.0, (2900.0, 3050.5), 2.1, (2.05, 2.2), 40)
    finalist = Finalist(result.selected.candidate, speed)
    proved = replace(result, rounds=(Round(2.0, 0.9, (finalist,)),))
    assert best_under(proved, ()) == finalist
    assert best_under(result, ()).speed is None


def test_costs_that_the_table_told_are_kept_whether_they_were_bounded_or_not(result):
    middle = sorted(candidate.cost("peak_memory") for candidate in result.history)[20]
    found = best_under(result, (Constraint("peak_memory", middle),)).candidate
    assert found.cost("peak_memory") <= middle


def test_what_no_candidate_keeps_names_what_they_reach(result):
    least = min(candidate.macs for candidate in result.history)
    with pytest.raises(UnreachableTarget, match=f"macs from {least:,.6g} to".replace("+", r"\+")):
        best_under(result, (Constraint("macs", 0.99 * least),))
    with pytest.raises(InputError, match="latency_batch_1 of architecture"):
        best_under(result, (Constraint("latency_batch_1", 1.0),))


def test_the_command_prints_the_answer_and_writes_its_architecture(result, tmp_path, capsys):
    result.save(tmp_path / "search_result.json")
    bound = sorted(candidate.macs for candidate in result.history)[20]
    arguments = [str(tmp_path), "--constraint", f"macs={bound}"]
    assert main([*arguments, "--json", "--out", str(tmp_path / "found.json")]) == 0
    document = json.loads(capsys.readouterr().out)
    expected = best_under(result, (Constraint("macs", bound),)).candidate
    assert document["best"]["id"] == expected.id
    assert Architecture.load(tmp_path / "found.json") == expected.architecture
    assert main(arguments) == 0
    assert expected.id in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--constraint", "macs=1"], 3, "none of the 44 networks"),
        (["--constraint", "wisdom=1"], 2, "no constraint 'wisdom'"),
        (["--constraint", "macs=1M", "--constraint", "macs=2M"], 2, "bounded twice"),
    ],
)
def test_a_bound_that_cannot_be_answered_is_one_sentence(
    result, tmp_path, capsys, arguments, code, said
):
    result.save(tmp_path / "search_result.json")
    assert main([str(tmp_path), *arguments]) == code
    complaint = capsys.readouterr().err
    assert said in complaint and len(complaint.splitlines()) == 1
    assert main([str(tmp_path / "nowhere")]) == 2
