"""Splits never meet, follow the classes, and stay the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitresnas.data.load import load_data, open_source, split_source
from vitresnas.data.splits import draw_stratified, holdout_size


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
def test_a_draw_is_stratified_and_leaves_the_rest(sizes, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = max(len(sizes), round(share * len(labels)))
    drawn, rest = draw_stratified(labels, count, seed, "holdout")
    assert sorted([*drawn, *rest]) == list(range(len(labels)))
    for label, size in enumerate(sizes):
        taken = int((labels[drawn] == label).sum())
        assert 1 <= taken < size
    again, _ = draw_stratified(labels, count, seed, "holdout")
    assert np.array_equal(drawn, again)


def test_digits_split_as_written_down():
    source = open_source("digits")
    (images, train), (_, holdout), (_, test), notes = split_source(source, seed=0)
    assert (len(train), len(holdout), len(test)) == (1137, 300, 360)
    assert len({*train.tolist(), *holdout.tolist(), *test.tolist()}) == 1797
    whole = np.bincount(images.labels) / 1797
    for part in (train, holdout, test):
        share = np.bincount(images.labels[part], minlength=10) / len(part)
        # Largest remainders: within one image of proportional in every class.
        assert np.abs(share - whole).max() <= 1.5 / len(part)
    assert notes == ()


def test_the_seed_moves_the_splits_and_nothing_else_does():
    source = open_source(None)
    first, same, other = (split_source(source, seed)[1][1] for seed in (0, 0, 1))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert load_data(None, image_size=16).id == load_data("digits", image_size=16, seed=0).id
    assert load_data(None, image_size=16).id != load_data(None, image_size=16, seed=1).id


def test_the_splits_of_digits_are_pinned():
    """A change here invalidates every super-network trained before; say so if it is meant."""
    _, (_, holdout), (_, test), _ = split_source(open_source("digits"), seed=0)
    assert holdout[:5].tolist() == [11, 19, 23, 34, 42]
    assert test[:5].tolist() == [0, 2, 4, 7, 16]


@pytest.mark.parametrize(
    ("classes", "per_class", "expected"),
    [(10, 5000, 5000), (1000, 1300, 25_000), (100, 300, 3000), (2, 100, 40), (10, 144, 288)],
    ids=["cifar10", "imagenet", "tiny-imagenet-100", "tiny", "small"],
)
def test_holdouts_have_a_sensible_size(classes, per_class, expected):
    assert holdout_size(np.repeat(np.arange(classes), per_class)) == expected
