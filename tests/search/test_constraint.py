"""Bounds and targets as users type them."""

from __future__ import annotations

import pytest

from vitresnas.errors import InputError
from vitresnas.search import Constraint, Target, parse_constraint
from vitresnas.search.constraint import costs_of, slack


@pytest.mark.parametrize("text", ["0", "-1", "abc", "nan", "inf", "1e999", "", "x", "0x", "-2x"])
def test_a_target_that_is_no_positive_number_is_refused_by_its_value(text):
    with pytest.raises(InputError, match="images per second") as refusal:
        Target.parse(text)
    assert repr(text) in str(refusal.value)


def test_a_target_is_images_per_second_or_times_the_largest():
    assert Target.parse("2000").images_per_second(300.0) == 2000.0
    assert Target.parse("2x").images_per_second(300.0) == 600.0
    assert Target.parse(" 1.5X ") == Target(1.5, relative=True)
    assert [str(Target.parse(text)) for text in ("2000", "1.5x")] == ["2000 images/s", "1.5x"]


def test_constraints_bound_macs_from_above_and_throughput_from_below(digits, prices):
    costs = costs_of(digits.largest, prices)
    speed = costs["throughput"]
    assert Constraint("throughput", speed / 2).slack(costs) == pytest.approx(2)
    assert Constraint("macs", 2 * costs["macs"]).slack(costs) == pytest.approx(2)
    both = (Constraint("throughput", speed / 2), Constraint("macs", costs["macs"] / 4))
    assert slack(both, costs) == pytest.approx(0.25)


def test_a_constraint_may_be_written_with_a_suffix():
    assert parse_constraint("macs=20M") == parse_constraint("macs = 2e7") == Constraint("macs", 2e7)
    assert parse_constraint("parameters=1.5e+6").bound == 1.5e6


@pytest.mark.parametrize(
    "text", ["macs", "macs=", "macs=many", "macs=0", "macs=-5", "macs=nan", "=3", "memory=5", "x=y"]
)
def test_a_constraint_that_cannot_be_kept_track_of_lists_what_exists(text):
    with pytest.raises(InputError) as refusal:
        parse_constraint(text)
    assert "macs" in str(refusal.value)
