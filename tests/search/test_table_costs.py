"""Bounds that only a latency table knows: latency, batch 1, peak memory, energy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from vitresnas.errors import InputError, UnreachableTarget
from vitresnas.latency import LatencyTable, load_tables
from vitresnas.latency.energy import Energy
from vitresnas.search import Constraint, parse_constraint
from vitresnas.search.constraint import costs_of
from vitresnas.search.lean import find_lean
from vitresnas.search.prices import TablePrices
from vitresnas.search.strategy import Problem
from vitresnas.space import load_space

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "cpu-xeon-2core"


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return load_tables(RESULTS / "latency_table_digits.json")[0]


@pytest.fixture(scope="module")
def space(table):
    return load_space("digits")


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("peak_memory=64MB", 64e6),
        ("peak_memory=1.5GiB", 1.5 * 2**30),
        ("peak_memory=1000", 1000.0),
        ("latency=5ms", 5.0),
        ("latency=5", 5.0),
        ("latency_batch_1=900us", 0.9),
        ("energy=20mJ", 0.02),
    ],
)
def test_bounds_are_written_with_their_units(text, bound):
    assert parse_constraint(text).bound == pytest.approx(bound)


@pytest.mark.parametrize("text", ["latency=5MB", "peak_memory=5ms", "macs=5MB", "energy=3W"])
def test_a_unit_of_something_else_is_refused(text):
    with pytest.raises(InputError, match="write NAME=VALUE"):
        parse_constraint(text)


def test_each_cost_is_the_table_s(table, space):
    prices, network = TablePrices(table), space.sample(Random(0))
    costs = costs_of(network, prices, ("latency", "peak_memory"))
    assert costs["latency"] == pytest.approx(table.milliseconds(network))
    assert costs["peak_memory"] == table.peak_memory(network)
    one = replace(table, condition=replace(table.condition, batch_size=1))
    both = TablePrices(table, (table, one))
    assert both.cost("latency_batch_1", network) == pytest.approx(one.milliseconds(network))


@pytest.mark.parametrize("name", ["latency", "peak_memory", "energy"])
def test_the_range_over_a_space_holds_every_network(table, space, name):
    energy = Energy("a meter", 0.001, 0.002, 50.0, (("a", 1.0, 1.0),))
    prices = TablePrices(replace(table, energy=energy))
    reach = prices.cost_reach(name, space)
    for seed in range(200):
        cost = prices.cost(name, space.sample(Random(seed)))
        assert reach.minimum <= cost * (1 + 1e-9) and cost <= reach.maximum * (1 + 1e-9)
    assert prices.cost(name, reach.lean) == pytest.approx(reach.minimum)


def test_a_bound_that_no_network_keeps_is_refused_with_the_range(table, space):
    prices = TablePrices(table)
    for name in ("latency", "peak_memory"):
        least = prices.cost_reach(name, space).minimum
        with pytest.raises(UnreachableTarget, match="they reach from"):
            find_lean(space, (Constraint(name, 0.99 * least),), prices)
        constraints = (Constraint(name, 1.05 * least),)
        lean = find_lean(space, constraints, prices)
        assert Problem(space, constraints, prices, lean).admits(lean)
        assert not Problem(space, constraints, prices, lean).admits(space.largest)


def test_what_the_table_does_not_hold_is_told_with_the_command(table, space):
    prices = TablePrices(table)
    with pytest.raises(InputError, match="holds no energy"):
        find_lean(space, (Constraint("energy", 1.0),), prices)
    with pytest.raises(InputError, match="--batch-size 1"):
        find_lean(space, (Constraint("latency_batch_1", 1.0),), prices)
    with pytest.raises(InputError, match="latency table"):
        costs_of(space.largest, None, ("latency",))
    find_lean(space, (Constraint("latency", 1.0),), None)  # asked again when there is a table
