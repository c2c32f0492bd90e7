"""Draws are near-balanced, open step by step, and stay in the space."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from vitresnas.space import SPACES
from vitresnas.supernet.sampling import draw_architectures, draw_balanced, open_choices


def test_draws_without_replacement_while_choices_last() -> None:
    rng = Random(0)
    for _ in range(50):
        assert len(set(draw_balanced("abcd", 3, rng))) == 3
    counts = Counter(draw_balanced("abc", 6, rng))
    assert set(counts.values()) == {2}


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 1), (7, 1), (8, 2), (15, 3), (22, 3), (23, 4), (29, 4), (30, 5), (119, 5)],
)
def test_five_choices_open_one_by_one_over_thirty_epochs(epoch: int, expected: int) -> None:
    # 1 + floor(e * 4 / 30), from the largest down
    assert (
        open_choices((256, 224, 192, 176, 160), epoch, 30) == (256, 224, 192, 176, 160)[:expected]
    )


def test_skipping_starts_at_two_thirds_of_widening() -> None:
    choices = ("keep", "keep", "skip", "skip")
    assert "skip" not in open_choices(choices, 19, 30)
    assert open_choices(choices, 20, 30) == ("keep", "keep", "skip")
    assert open_choices(choices, 30, 30) == choices


def test_the_first_epoch_trains_the_largest_network_alone() -> None:
    space = SPACES["digits"]
    assert set(draw_architectures(space, 8, Random(0), epoch=0, widening_epochs=10)) == {
        space.largest
    }


def test_draws_stay_in_the_space_and_cover_every_choice() -> None:
    space, rng = SPACES["digits"], Random(0)
    drawn = [a for _ in range(40) for a in draw_architectures(space, 4, rng)]
    assert all(architecture in space for architecture in drawn)
    assert {a.stages[0].embed for a in drawn} == set(space.stages[0].embed)
    skipped = sum(a.stages[1].blocks[1] is None for a in drawn)
    assert skipped == len(drawn) // 2  # balanced: exactly half of every four groups
    assert len(set(drawn)) > 100


def test_the_same_seed_draws_the_same_networks() -> None:
    space = SPACES["cifar"]
    assert draw_architectures(space, 4, Random(3)) == draw_architectures(space, 4, Random(3))
