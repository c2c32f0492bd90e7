import numpy as np
import pytest
from scipy.stats import kendalltau

from vitresnas.latency import Measurement, interval_95, kendall_tau
from vitresnas.latency.statistics import percentage_errors


def test_the_interval_holds_the_true_median_about_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = interval_95(list(rng.normal(10.0, 1.0, size=25)))
        hits += low <= 10.0 <= high
    assert 180 <= hits <= 199


def test_the_interval_is_the_same_every_time_and_narrows_with_more_samples():
    samples = list(np.random.default_rng(1).normal(5.0, 0.5, size=400))
    assert interval_95(samples) == interval_95(samples)
    few, many = interval_95(samples[:20]), interval_95(samples)
    assert many[1] - many[0] < few[1] - few[0]


def test_kendall_tau_agrees_with_scipy_ties_included():
    rng = np.random.default_rng(2)
    for _ in range(20):
        a, b = rng.integers(0, 8, size=24).tolist(), rng.normal(size=24).tolist()
        assert kendall_tau(a, b) == pytest.approx(kendalltau(a, b).statistic)
    assert kendall_tau([1.0, 2.0, 3.0], [1.0, 4.0, 9.0]) == 1.0
    assert kendall_tau([1.0, 1.0], [1.0, 2.0]) == 0.0


def test_throughput_and_its_interval_turn_the_times_around():
    measured = Measurement((9.0, 10.0, 11.0, 10.0, 10.0))
    low, high = measured.images_per_second_interval_95(32)
    assert measured.images_per_second(32) == 3200.0
    assert low <= 3200.0 <= high
    assert high == pytest.approx(32000.0 / measured.interval_95[0])


def test_a_speedup_survives_a_machine_that_slows_down_for_both():
    load = np.linspace(1.0, 5.0, 30)
    slow, fast = Measurement(tuple(20.0 * load)), Measurement(tuple(10.0 * load))
    ratio, (low, high) = fast.speedup_over(slow)
    assert [low, ratio, high] == pytest.approx([2.0, 2.0, 2.0])


def test_errors_are_relative_to_what_was_measured():
    assert percentage_errors([1.1, 3.0], [1.0, 4.0]) == [pytest.approx(10.0), pytest.approx(25.0)]
