"""Planted conditions agree or differ as they were made to; the command reads a measured file."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from vitresnas.files import read_json
from vitresnas.latency import load_tables, save_tables
from vitresnas.latency.__main__ import main as measure
from vitresnas.latency.agreement import TARGETS, agreements
from vitresnas.latency.statistics import kendall_tau, kendall_tau_interval_95
from vitresnas.latency.timing import Timing
from vitresnas.space.operations import macs

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))


def _scaled(table, factors, **changes):
    """The table with the pieces of some kinds slower, as another condition."""
    entries = []
    for operation, timing in table.entries:
        factor = factors.get(operation.kind, 1.0)
        entries.append((operation, Timing(tuple(factor * t for t in timing.host_samples))))
    condition = replace(table.condition, runtime="compile", **changes)
    return replace(table, entries=tuple(entries), condition=condition)


def test_a_condition_that_is_only_faster_changes_no_choice(table, small_space):
    faster = _scaled(table, dict.fromkeys({o.kind for o, _ in table.entries}, 0.5))
    found = agreements((table, faster), small_space, draws=100)
    assert len(found) == 2
    for one in found:
        assert one.sample.networks == 100 and one.sample.tau == pytest.approx(1.0, abs=1e-3)
        assert one.measured_by_other.tau == pytest.approx(one.measured_by_own.tau, abs=1e-3)
        assert len(one.choices) == TARGETS and not one.differing and not one.beyond_error
    slow_numbers, fast_numbers = (one.choices for one in found)
    # Believing a faster condition's numbers misses the target, believing a slower one's gives away.
    off = [one.off_target_percent for one in slow_numbers]
    assert min(percent for percent in off if percent is not None) < -30
    assert any(one.taken is None for one in fast_numbers)


def test_a_condition_that_prices_attention_otherwise_chooses_otherwise(table, small_space):
    other = _scaled(table, {"attention": 4.0})
    found = agreements((table, other), small_space, draws=300)
    assert sum(len(one.beyond_error) for one in found) >= 3
    for one in found:
        assert one.sample.tau < 0.95 and one.sample.interval_95[1] < 1.0
        assert set(one.beyond_error) <= set(one.differing)
        assert all(choice.longer_percent >= 0.0 for choice in one.choices)
        assert all(choice.rival.macs >= choice.best.macs for choice in one.choices)


def test_the_best_is_that_of_the_whole_space(table, small_space):
    other = _scaled(table, {"mlp": 3.0})
    (one, _) = agreements((table, other), small_space, draws=300)
    rng = Random(1)
    everything = {small_space.sample(rng) for _ in range(8000)}
    assert len(everything) > 0.9 * small_space.size
    for choice in one.choices:
        limit = 1000.0 * table.condition.batch_size / choice.images_per_second
        assert choice.best.milliseconds <= limit
        most = max(macs(a) for a in everything if table.milliseconds(a) <= limit)
        assert choice.best.macs >= most
        assert choice.best.milliseconds == pytest.approx(table.milliseconds(_network(choice)))


def _network(choice):
    return choice.best.architecture


def test_the_same_seed_gives_the_same_comparison(table, small_space):
    tables = (table, _scaled(table, {"mlp": 2.0}, batch_size=8))
    twice = [agreements(tables, small_space, draws=30, seed=3) for _ in range(2)]
    assert twice[0] == twice[1] != agreements(tables, small_space, draws=30, seed=4)


def test_the_interval_of_tau_holds_tau_and_narrows_with_more_networks():
    rng = np.random.default_rng(0)
    widths = []
    for size in (30, 300):
        truth = rng.normal(size=size)
        noisy = truth + 0.3 * rng.normal(size=size)
        low, high = kendall_tau_interval_95(truth, noisy)
        assert low < kendall_tau(truth, noisy) < high < 1.0
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]
    assert kendall_tau_interval_95([1.0, 2.0, 3.0], [1.0, 5.0, 9.0])[1] == pytest.approx(1.0)
    assert kendall_tau_interval_95([1.0, 1.0], [1.0, 2.0]) == (0.0, 0.0)


def test_the_command_on_two_measured_conditions(small_space, tmp_path, capsys):
    from rank_agreement import KIND, main

    small_space.save(tmp_path / "space.json")
    table, out = str(tmp_path / "table.json"), tmp_path / "agreement.json"
    for batch_size in ("1", "8"):
        options = ("--batch-size", batch_size, "--seconds", "0.3", "--threads", "1")
        common = ("--space", str(tmp_path / "space.json"), "--device", "cpu", "--out", table)
        assert measure((*common, *options)) == 0
    assert main(("--table", table)) == 2
    assert "say which space" in capsys.readouterr().err
    few = ("--table", table, "--draws", "20", "--space", str(tmp_path / "space.json"))
    assert main((*few, "--out", str(out))) == 0
    said = capsys.readouterr().out
    assert said.count("the best network") == 2 and said.count("im/s") == 2 * TARGETS
    document = read_json(out, KIND)
    assert [one["right"]["batch_size"] for one in document["agreements"]] == [1, 8]
    assert len(document["agreements"][0]["choices"]) == TARGETS
    assert main((*few, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["agreements"] == document["agreements"]
    save_tables(table, load_tables(table)[:1])
    assert main(few) == 2
    assert "holds 1 conditions" in capsys.readouterr().err
