"""Planted laws win the comparison of corrections; the command prints and writes it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vitresnas.files import read_json
from vitresnas.latency import load_tables, save_tables
from vitresnas.latency.comparison import compare

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "bench" / "results" / "cpu-xeon-2core" / "latency_table_digits.json"
sys.path.insert(0, str(ROOT / "bench"))


def _planted(table, law):
    """The table with its whole networks' times made by `law(pair, sum of pieces)`."""

    def validation(old):
        pairs = []
        for pair in old.pairs:
            total = (table.milliseconds(pair.architecture) - 0.2) / 1.1
            time = law(pair, total)
            pairs.append(replace(pair, measured=time, samples=(time,)))
        return replace(old, pairs=tuple(pairs))

    roles = ("validation", "validation_uniform", "calibration_networks")
    return replace(table, **{role: validation(getattr(table, role)) for role in roles})


def _scores(comparison):
    return {score.model: score for score in comparison.scores}


def test_a_planted_affine_law_is_chosen_and_the_plain_sum_is_not(table):
    comparison = compare(_planted(table, lambda pair, total: 0.5 + 1.3 * total))
    assert comparison.networks == 48 and comparison.chosen.model == "affine"
    scores = _scores(comparison)
    assert scores["affine"].mean_percent < 1e-6 < 20 < scores["sum"].mean_percent
    assert scores["affine"].kendall_tau == pytest.approx(1.0)


def test_a_learned_residual_wins_where_depth_costs_what_no_sum_shows(table):
    def law(pair, total):
        return (1.0 + 0.08 * pair.architecture.depth) * total

    scores = _scores(compare(_planted(table, law)))
    assert scores["affine + ridge"].mean_percent < 0.5 * scores["affine"].mean_percent


def test_the_committed_table_is_compared():
    (table,) = load_tables(DIGITS)
    comparison = compare(table)
    assert comparison.networks == 48
    assert _scores(comparison)["affine"].mean_percent < 2.0
    assert _scores(comparison)["sum"].mean_percent > 5.0


def test_the_command_prints_and_writes_it(table, tmp_path, capsys):
    from latency_models import KIND, main

    save_tables(tmp_path / "table.json", [table])
    out = tmp_path / "models.json"
    assert main(["--table", str(tmp_path / "table.json"), "--out", str(out)]) == 0
    assert "simplest within a quarter" in capsys.readouterr().out
    assert read_json(out, KIND)["conditions"][0]["networks"] == 48
    assert main(["--table", str(tmp_path / "table.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["conditions"][0]["chosen"]
    assert main(["--table", str(tmp_path / "none.json")]) == 2
