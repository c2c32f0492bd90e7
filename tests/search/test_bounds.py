"""Bounds at every look: how often they fail, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from vitresnas.search.bounds import lower_bound, radius

IMAGES, ERROR, RUNS = 2000, 0.1, 600
LOOKS = (100, 150, 200, 300, 400, 600, 800, 1000, 1300, 1600, 1900, 2000)
POPULATIONS = {
    "normal": lambda rng: rng.normal(0.3, 1.0, IMAGES),
    "heavy tails": lambda rng: rng.standard_t(3, IMAGES),
    "a few hard images": lambda rng: np.where(rng.random(IMAGES) < 0.05, rng.exponential(3), 0.0),
}


def failures(bound, draw, rng) -> float:
    """The share of runs in which the bound exceeds the mean of all at any look."""
    failed = 0
    for _ in range(RUNS):
        values = rng.permutation(draw(rng))
        failed += any(bound(values[:look]) > values.mean() + 1e-12 for look in LOOKS)
    return failed / RUNS


@pytest.mark.parametrize("name", POPULATIONS)
def test_looking_often_does_not_make_the_bound_fail_more_often_than_promised(name):
    def ours(sample):
        return lower_bound(sample, IMAGES, ERROR, tight_at=400)

    assert failures(ours, POPULATIONS[name], np.random.default_rng(0)) <= ERROR


def test_a_bound_for_one_look_fails_far_more_often_over_all_looks():
    def naive(sample):
        rest = 1 / len(sample) - 1 / IMAGES
        return sample.mean() - 1.2816 * sample.std(ddof=1) * np.sqrt(max(rest, 0.0))

    assert failures(naive, POPULATIONS["normal"], np.random.default_rng(0)) > 2 * ERROR


def test_the_radius_falls_to_nothing_at_the_last_image():
    radii = [radius(count, IMAGES, 0.05, 400) for count in (*LOOKS[:-1], IMAGES - 1, IMAGES)]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] == 0.0
    assert 0 < radius(100, 300, 0.05, 400) < np.inf  # a hold-out smaller than where it is tight
    assert lower_bound(np.arange(5.0), 5, 0.05, 2) == 2.0
