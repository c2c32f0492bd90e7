"""Planted laws are found again; the simplest model that explains them is kept."""

from random import Random

import numpy as np
import pytest

from vitresnas.latency.calibration import features, fit
from vitresnas.latency.timing import Timing
from vitresnas.space import load_space, operations


@pytest.fixture(scope="module")
def networks():
    space, rng = load_space("digits"), Random(3)
    return [space.smallest, space.largest, *(space.sample(rng) for _ in range(10))]


def _features(network, launch=None):
    """Device times follow MACs; `launch`: the host time of every piece, where it is another."""

    def timing(piece):
        work = piece.macs / 1e7
        return Timing((0.02 + work,)) if launch is None else Timing((launch,), (work,))

    return features((piece, timing(piece)) for piece in operations(network))


def test_a_scaled_sum_is_kept_simple(networks):
    found = [_features(network) for network in networks]
    calibration = fit(found, [1.3 * one["device"] for one in found])
    assert calibration.model == "scale"
    assert dict(calibration.coefficients) == {"device": pytest.approx(1.3)}
    assert dict(calibration.comparison)["sum"] == pytest.approx(100 * (1 - 1 / 1.3), abs=1e-3)


def test_a_constant_is_found_where_there_is_one(networks):
    found = [_features(network) for network in networks]
    calibration = fit(found, [2.0 + 0.9 * one["device"] for one in found])
    assert calibration.model == "affine"
    assert dict(calibration.coefficients) == {
        "constant": pytest.approx(2.0),
        "device": pytest.approx(0.9),
    }


def test_a_scale_per_kind_is_found_where_kinds_differ(networks):
    planted = [_features(network) for network in networks]
    measured = [
        0.5 * one["attention"] + 1.5 * one["mlp"] + one["reduction"] + one["head"]
        for one in planted
    ]
    calibration = fit(planted, measured)
    assert calibration.model == "kinds"
    found = dict(calibration.coefficients)
    assert found["attention"] == pytest.approx(0.5, rel=0.25)  # drawn a little to the others
    assert found["mlp"] == pytest.approx(1.5, rel=0.25)


def test_no_kind_becomes_free_because_kinds_grow_together(networks):
    rng = np.random.default_rng(0)
    found = [_features(network) for network in networks]
    for _ in range(10):
        measured = [
            (0.7 * one["attention"] + 1.2 * one["mlp"] + one["reduction"]) * rng.normal(1.0, 0.03)
            for one in found
        ]
        calibration = fit(found, measured)
        if calibration.model == "kinds":
            assert all(dict(calibration.coefficients)[kind] > 0.2 for kind in ("attention", "mlp"))


def test_a_model_that_makes_a_kind_free_is_not_chosen_however_well_it_fits(networks):
    found = [_features(network) for network in networks]
    measured = [0.01 * one["attention"] + 2.0 * one["mlp"] + one["reduction"] for one in found]
    calibration = fit(found, measured)
    assert dict(calibration.comparison)["kinds"] == min(dict(calibration.comparison).values())
    assert calibration.model != "kinds"


def test_overlapping_host_and_device_times_are_the_larger_of_both(networks):
    # Launch-bound at the small end, compute-bound at the large one.
    found = [_features(network, launch=0.08) for network in networks]
    assert len({one["host"] > one["device"] for one in found}) == 2
    calibration = fit(found, [0.1 + max(one["host"], one["device"]) for one in found])
    assert calibration.model == "max"


def test_noise_does_not_buy_a_richer_model(networks):
    rng = np.random.default_rng(0)
    found = [_features(network) for network in networks]
    calibration = fit(found, [one["device"] * rng.normal(1.2, 0.01) for one in found])
    assert calibration.model == "scale"
    assert all(weight >= 0.0 for _, weight in calibration.coefficients)


def test_too_few_networks_are_refused(networks):
    found = [_features(network) for network in networks[:2]]
    with pytest.raises(ValueError, match="at least 3"):
        fit(found, [1.0, 2.0])
