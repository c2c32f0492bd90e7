"""Scores: what a sub-network's score means, and that it depends on nothing else."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from tests.second_device import second_device
from vitresnas.data import ImageSet
from vitresnas.search.score import SupernetScorer, score_model
from vitresnas.supernet import Supernet


@pytest.fixture
def supernet(handful):
    torch.manual_seed(0)
    return Supernet(handful).eval()


@pytest.fixture
def holdout(handful):
    generator = torch.Generator().manual_seed(1)
    side = handful.image_size
    images = torch.randint(0, 256, (23, 3, side, side), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.randint(0, handful.classes, (23,), generator=generator))


def test_a_score_is_the_mean_likelihood_and_accuracy_of_the_extracted_network(
    supernet, holdout, handful
):
    architecture = handful.sample(Random(2))
    score = SupernetScorer(supernet, holdout)(architecture)
    model = supernet.extract(architecture).eval()
    ((images, labels),) = holdout.batches(100)
    with torch.no_grad():
        logits = model(images).double()
    chosen = torch.log_softmax(logits, 1)[torch.arange(23), labels]
    assert score.negative_log_likelihood == pytest.approx(-float(chosen.mean()), abs=1e-6)
    assert score.accuracy == float((logits.argmax(1) == labels).double().mean())
    assert score.images == 23
    alone = score_model(model, holdout)
    assert alone.negative_log_likelihood == pytest.approx(score.negative_log_likelihood, abs=1e-6)


def test_scores_do_not_depend_on_what_was_scored_before(supernet, holdout, handful):
    rng = Random(3)
    networks = [handful.sample(rng) for _ in range(5)]
    scorer = SupernetScorer(supernet, holdout, batch_size=10)
    forwards = [scorer(network) for network in networks]
    backwards = [scorer(network) for network in reversed(networks)]
    assert forwards == backwards[::-1]
    assert forwards == [SupernetScorer(supernet, holdout, batch_size=10)(n) for n in networks]


def test_a_trunk_too_large_to_keep_gives_the_same_scores(supernet, holdout, handful):
    kept = SupernetScorer(supernet, holdout, batch_size=10)
    anew = SupernetScorer(supernet, holdout, batch_size=10, trunk_budget=0)
    assert kept(handful.largest) == anew(handful.largest)


@pytest.mark.parametrize("trunk_budget", (1 << 30, 0))
def test_parts_together_are_the_score(supernet, holdout, handful, trunk_budget):
    rng = Random(4)
    networks = [handful.sample(rng) for _ in range(3)]
    scorer = SupernetScorer(supernet, holdout, batch_size=10, trunk_budget=trunk_budget)
    parts = [scorer.parts(networks, 0, 12), scorer.parts(networks, 12, 23)]
    for place, network in enumerate(networks):
        score = scorer(network)
        losses = np.concatenate([part[place].losses for part in parts])
        assert losses.mean() == pytest.approx(score.negative_log_likelihood, abs=1e-6)
        assert sum(part[place].correct for part in parts) / 23 == score.accuracy
    assert scorer.images == 23


def test_scores_on_another_device_are_the_same(supernet, holdout, handful):
    network = handful.sample(Random(5))
    expected = SupernetScorer(supernet, holdout)(network)
    with second_device() as device:
        moved = supernet.to(device)
        for trunk_budget in (1 << 30, 0):
            scorer = SupernetScorer(moved, holdout, trunk_budget=trunk_budget)
            parts = scorer.parts([network, handful.largest], 0, 23)[0]
            loss = pytest.approx(expected.negative_log_likelihood, abs=1e-6)
            assert scorer(network).negative_log_likelihood == loss
            assert float(np.mean(parts.losses)) == loss
        model = moved.extract(network)
        assert next(model.parameters()).device == device
        assert score_model(model, holdout).negative_log_likelihood == loss
