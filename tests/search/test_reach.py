"""The extremes of a space are exact, also where the narrowest network is not the fastest."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from random import Random

import pytest

from vitresnas.errors import UnreachableTarget
from vitresnas.search import Constraint
from vitresnas.search.constraint import costs_of, slack
from vitresnas.search.lean import find_lean
from vitresnas.search.reach import cheapest, dearest, throughput_reach, total
from vitresnas.space import Architecture, Block, SearchSpace, Stage, macs


def every_network(space: SearchSpace) -> set[Architecture]:
    """All of a small space, by brute force."""
    menus = []
    for choices in space.stages:
        blocks = [Block(h, m) for h, m in product(choices.heads, choices.hidden)]
        positions = [
            [*blocks, None] if choices.may_skip(position) else blocks
            for position in range(choices.blocks)
        ]
        menus.append(
            [
                Stage(embed, choices.head_dim, tuple(pattern))
                for embed in choices.embed
                for pattern in product(*positions)
            ]
        )
    found = {replace(space.largest, stages=stages) for stages in product(*menus)}
    return {network for network in found if network in space}


def test_the_extremes_are_those_of_the_whole_space(handful, prices):
    networks = every_network(handful)
    assert len(networks) == handful.size
    reach = throughput_reach(handful, prices)
    speeds = [prices.images_per_second(network) for network in networks]
    assert (reach.minimum, reach.maximum) == (min(speeds), max(speeds))
    assert reach.bound == reach.maximum


def test_the_fastest_may_be_wider_than_the_narrowest(digits, prices):
    reach = throughput_reach(digits, prices)
    assert reach.fastest in digits and reach.slowest in digits
    assert reach.fastest != digits.smallest
    assert reach.maximum > prices.images_per_second(digits.smallest)
    rng = Random(0)
    drawn = [prices.images_per_second(digits.sample(rng)) for _ in range(500)]
    assert reach.minimum < min(drawn) and max(drawn) < reach.maximum


def test_macs_are_least_in_the_smallest_network(digits):
    def piece(operation):
        return operation.macs

    assert cheapest(digits, piece) == digits.smallest
    assert total(dearest(digits, piece), piece) == macs(digits.largest)


class LargerOfTwoSums:
    """Time is the larger of a host's and a device's sum: no plain sum of pieces."""

    def host(self, operation):
        return 0.5 + 1e-9 * operation.macs

    def device(self, operation):
        return 2e-7 * operation.macs

    @property
    def pieces(self):
        shares = [index / 20 for index in range(21)]
        return [
            lambda op, share=share: share * self.host(op) + (1 - share) * self.device(op)
            for share in shares
        ]

    def images_per_second(self, architecture):
        return self.images_per_second_of(
            max(total(architecture, self.host), total(architecture, self.device))
        )

    def images_per_second_of(self, milliseconds):
        return 1000 / milliseconds


def test_where_host_and_device_overlap_the_bound_is_above_every_network(handful):
    prices = LargerOfTwoSums()
    speeds = [prices.images_per_second(network) for network in every_network(handful)]
    reach = throughput_reach(handful, prices)
    assert reach.maximum <= max(speeds) <= reach.bound * (1 + 1e-12)
    assert reach.bound <= 1.05 * max(speeds)
    assert reach.minimum == min(speeds)


def test_a_bound_out_of_reach_names_the_range(digits, prices):
    reach = throughput_reach(digits, prices)
    with pytest.raises(UnreachableTarget, match=f"{reach.minimum:,.6g} to {reach.maximum:,.6g}"):
        find_lean(digits, (Constraint("throughput", reach.maximum * 1.001),), prices)
    with pytest.raises(UnreachableTarget, match=re.escape(f"{macs(digits.smallest):,.6g}")):
        find_lean(digits, (Constraint("macs", 1000),), None)


def test_the_lean_network_keeps_every_constraint_that_the_extremes_keep(digits, prices):
    reach = throughput_reach(digits, prices)
    just = (Constraint("throughput", reach.maximum),)
    assert find_lean(digits, just, prices) == reach.fastest


def together(prices, digits, megamacs, times):
    speed = times * throughput_reach(digits, prices).maximum
    return Constraint("macs", megamacs * 1e6), Constraint("throughput", speed)


def test_bounds_that_contradict_each_other_are_refused_with_what_is_in_reach(digits, prices):
    # Each alone can be kept: the smallest network has 5.07 M MACs.
    bounds = together(prices, digits, 5.2, 0.98)
    with pytest.raises(UnreachableTarget) as refused:
        find_lean(digits, bounds, prices)
    found = re.findall(
        r"(?:up|down) to ([0-9.e+,]+) with the other bounds kept", str(refused.value)
    )
    macs_kept, speed_kept = (float(number.replace(",", "")) for number in found)
    # What is said to be in reach is.
    for loosened in (
        (Constraint("macs", macs_kept * 1.001), bounds[1]),
        (bounds[0], Constraint("throughput", speed_kept * 0.999)),
    ):
        assert slack(loosened, costs_of(find_lean(digits, loosened, prices), prices)) >= 1


def test_bounds_that_only_a_compromise_keeps_find_it(digits, prices):
    bounds = together(prices, digits, 6.0, 0.8)
    ends = digits.smallest, throughput_reach(digits, prices).fastest
    assert all(slack(bounds, costs_of(end, prices)) < 1 for end in ends)
    assert slack(bounds, costs_of(find_lean(digits, bounds, prices), prices)) >= 1
