"""Samplers draw what their sources say, from the space and what of it is open."""

from __future__ import annotations

from random import Random

import pytest

from vitresnas.errors import InputError
from vitresnas.space import SPACES
from vitresnas.supernet.samplers import (
    MULTI_ARCHITECTURE,
    SAMPLERS,
    SANDWICH,
    SINGLE_ARCHITECTURE,
    load_sampler,
)
from vitresnas.supernet.sampling import draw_architectures

SPACE = SPACES["digits"]


def draw(sampler, groups, seed=0, epoch=5, widening_epochs=0):
    return sampler.draw(SPACE, groups, Random(seed), epoch=epoch, widening_epochs=widening_epochs)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_draws_lie_in_the_space_and_repeat(sampler):
    for epoch in range(6):
        drawn = draw(sampler, 4, seed=epoch, epoch=epoch, widening_epochs=4)
        assert all(architecture in SPACE for architecture in drawn)
        assert drawn == draw(sampler, 4, seed=epoch, epoch=epoch, widening_epochs=4)
        if epoch == 0:
            assert set(drawn) == {SPACE.largest}
    assert load_sampler(sampler.name) is sampler
    assert "arXiv" in sampler.source


def test_each_source_has_its_networks_and_images():
    assert draw(MULTI_ARCHITECTURE, 4) == draw_architectures(SPACE, 4, Random(0))
    assert MULTI_ARCHITECTURE.parts(4) == 4
    assert draw(SINGLE_ARCHITECTURE, 4) == draw_architectures(SPACE, 1, Random(0))
    assert SINGLE_ARCHITECTURE.parts(4) == 1
    first, *between, last = draw(SANDWICH, 4)
    assert (first, last) == (SPACE.largest, SPACE.smallest)
    assert between == list(draw_architectures(SPACE, 2, Random(0)))
    assert SANDWICH.parts(4) == 1 and SANDWICH.shares_images


def test_the_sandwich_ends_at_the_smallest_network_that_is_open():
    last = draw(SANDWICH, 2, epoch=2, widening_epochs=4)[-1]
    # half of widening: 3 of 5 widths are open, skipping is not
    assert [stage.embed for stage in last.stages] == [48, 96, 192]
    assert last.depth == SPACE.largest.depth


def test_a_sampler_that_is_unknown_or_has_too_few_groups_is_refused():
    with pytest.raises(InputError, match="no sampler 'greedy': use multi-architecture, single"):
        load_sampler("greedy")
    with pytest.raises(InputError, match="groups is 1: the sampler sandwich runs at least 2"):
        SANDWICH.check(1)
