"""bench/search_cost.py: what its curves and summaries mean."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("search_cost")


def test_a_curve_rises_in_images_and_repeats_with_its_seed(bench):
    bound = bench.bounds()[1]
    curve = bench.run("guided+racing", bound, 7)
    images = [spent for spent, _ in curve]
    assert images == sorted(images)
    assert min(rank for _, rank in curve) >= 1
    assert bench.run("guided+racing", bound, 7) == curve


def test_a_summary_tells_from_when_on_the_median_is_as_good(bench):
    curves = [[(2000, 9), (4000, 3), (8000, 1)], [(2000, 5), (6000, 3)], [(1000, 4), (5000, 2)]]
    row = bench.summary(curves, yardstick_rank=3)
    assert (row["final_rank_median"], row["image_evaluations_median"]) == (2, 6000)
    assert 4000 <= row["evolutions_rank_reached_at"] <= 6000
    assert row["curve"]["image_evaluations"][0] >= 2000
    assert bench.summary(curves, yardstick_rank=0)["evolutions_rank_reached_at"] is None
