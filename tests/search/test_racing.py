"""Races: who leaves, what it costs, and that a race that was cut short ends the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest

from vitresnas.errors import FileFormatError, InputError, MismatchError
from vitresnas.search import Constraint
from vitresnas.search.engine import Session, search
from vitresnas.search.evolution import Evolution
from vitresnas.search.guided import Guided
from vitresnas.search.parts import BLOCK, NETWORKS_PER_PASS, Part, Parts
from vitresnas.search.racing import Racing, RacingEvaluator
from vitresnas.search.strategy import Proposal
from vitresnas.search.surrogate import features
from vitresnas.space import macs

IMAGES = 950  # the last block is short
EVOLUTION = Evolution(initial=12, iterations=3, parents=6, mutants=4, crossovers=4)
GUIDED = Guided(initial=8, iterations=8, batch=4, pool=40)


@dataclass
class Formula:
    """Losses by formula: hard images are hard for all, and what divides networks is small."""

    images: int = IMAGES
    asked: list[tuple[int, ...]] = field(default_factory=list)
    stop_after: int | None = None

    def parts(self, architectures, first, last):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked.append((len(architectures), first, last))
        return [self.part(architecture, first, last) for architecture in architectures]

    def part(self, architecture, first, last):
        hard = np.random.default_rng(7).exponential(1.0, self.images)
        own = np.random.default_rng(int(architecture.id[:8], 16)).normal(0, 0.1, self.images)
        losses = hard + own + 0.06 * np.log(3e7 / macs(architecture))
        return Part(losses[first:last], int((losses[first:last] < 0.5).sum()))

    def mean(self, architecture):
        return float(self.part(architecture, 0, self.images).losses.astype("<f4").mean())

    def __call__(self, architecture):
        return self.mean(architecture)


def race(space, scorer, strategy=EVOLUTION, path=None, context=None, workers=1, racing=None):
    parts = Parts(scorer, path, context or {"supernet": "formula"}, workers)
    racing = racing or getattr(strategy, "racing", Racing())
    session = Session(
        space, scorer, (Constraint("macs", 2e7),), strategy=strategy, seed=3,
        racing=racing, parts=parts,
    )  # fmt: skip
    return session.run()


@pytest.mark.parametrize("strategy", (EVOLUTION, GUIDED), ids=("evolution", "guided"))
def test_the_winner_has_met_all_images_and_many_others_few(digits, strategy):
    scorer = Formula()
    result = race(digits, scorer, strategy)
    best = result.selected.candidate
    assert best.score.images == IMAGES
    assert best.score.negative_log_likelihood == pytest.approx(scorer.mean(best.architecture))
    met = [candidate.score.images for candidate in result.history]
    assert sum(met) < 0.6 * IMAGES * len(met)
    for candidate in result.history:
        assert candidate.architecture in digits and candidate.macs <= 2e7
        if candidate.score.images == IMAGES:
            truth = scorer.mean(candidate.architecture)
            assert candidate.score.negative_log_likelihood == pytest.approx(truth, abs=1e-7)


def test_a_better_network_seldom_leaves(digits):
    rng, scorer, wrong, left = Random(0), Formula(), 0, 0
    for _ in range(30):
        networks = [digits.sample(rng) for _ in range(5)]
        evaluator = RacingEvaluator(Racing(error=0.1), Parts(scorer), digits, None)
        first, *others = evaluator([Proposal(network) for network in dict.fromkeys(networks)])
        for other in others:
            if other.score.images < IMAGES:
                left += 1
                wrong += scorer.mean(other.architecture) < first.score.negative_log_likelihood
    assert left > 20
    assert wrong <= 0.1 * left


def test_a_race_in_steps_meets_one_look_per_call(digits):
    evaluator = RacingEvaluator(Racing(steps=True), Parts(Formula()), digits, None)
    rng = Random(1)
    evaluator([Proposal(digits.sample(rng))])
    network = Proposal(digits.sample(rng))
    met = [evaluator([network])[0].score.images]
    while network.architecture.id in evaluator.open:
        met.append(evaluator([network])[0].score.images)
    assert met == sorted(set(met))
    assert met[0] in (BLOCK, IMAGES % BLOCK)
    assert len(evaluator.candidates) == 2


@pytest.mark.parametrize("strategy", (EVOLUTION, GUIDED), ids=("evolution", "guided"))
def test_a_race_cut_short_anywhere_ends_as_one_in_a_piece(tmp_path, digits, strategy):
    whole = Formula()
    expected = race(digits, whole, strategy)
    for stop in (1, len(whole.asked) // 2):
        path = tmp_path / f"{stop}.jsonl"
        with pytest.raises(KeyboardInterrupt):
            race(digits, Formula(stop_after=stop), strategy, path)
        path.write_bytes(path.read_bytes()[:-9])  # in the middle of a line
        rest = Formula()
        assert race(digits, rest, strategy, path).to_json() == expected.to_json()
        assert set(rest.asked) <= set(whole.asked)  # the same passes, in the same company
        again = Formula()
        assert race(digits, again, strategy, path).to_json() == expected.to_json()
        assert not again.asked


@pytest.mark.parametrize("images", (40, 250))
def test_a_small_hold_out_can_be_raced_on(digits, images):
    result = race(digits, Formula(images=images), GUIDED)
    assert result.selected.candidate.score.images == images


def test_threads_change_nothing(digits):
    assert (
        race(digits, Formula(), workers=2).to_json() == race(digits, Formula(), workers=1).to_json()
    )


def test_passes_hold_several_networks_and_one_block(digits):
    scorer = Formula()
    race(digits, scorer)
    assert max(networks for networks, _, _ in scorer.asked) == NETWORKS_PER_PASS
    assert {first % BLOCK for _, first, _ in scorer.asked} == {0}
    assert all(last == min(first + BLOCK, IMAGES) for _, first, last in scorer.asked)


def test_a_scorer_without_parts_is_asked_in_full(digits):
    scorer = Formula()
    session = Session(digits, scorer.__call__, (Constraint("macs", 2e7),), strategy=GUIDED)
    result = session.run()
    assert not scorer.asked
    truth = scorer.mean(result.selected.candidate.architecture)
    assert result.selected.candidate.score.negative_log_likelihood == truth
    assert {candidate.score.images for candidate in result.history} == {0}


def test_a_log_of_other_parts_is_refused(tmp_path, digits):
    path = tmp_path / "parts.jsonl"
    race(digits, Formula(), path=path)
    with pytest.raises(MismatchError, match="supernet"):
        race(digits, Formula(), path=path, context={"supernet": "another"})
    with pytest.raises(MismatchError, match="images 950"):
        race(digits, Formula(images=900), path=path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2].replace('"losses": "', '"losses": "AAAA')]))
    path.write_text(path.read_text() + "\n")
    with pytest.raises(FileFormatError, match="line 3"):
        race(digits, Formula(), path=path)


@pytest.mark.parametrize("wrong", ({"growth": 1.0}, {"heat": 0}, {"error": 0.5}))
def test_a_race_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match="racing runs heats"):
        Racing(**wrong)


def test_a_tighter_round_is_raced_among_those_that_keep_it(digits):
    scorer = Formula()
    parts = Parts(scorer, None, {"supernet": "formula"})
    loose, tight = (Constraint("macs", 2e7),), (Constraint("macs", 8e6),)
    session = Session(digits, scorer, loose, strategy=GUIDED, racing=GUIDED.racing, parts=parts)
    first = session.run()
    later = session.round(2, tight, first.history)
    assert later and all(candidate.macs <= 8e6 for candidate in later)
    best = min(later, key=lambda candidate: candidate.rank)
    known = [found for found in first.history if found.macs <= 8e6]
    assert best.score.images == IMAGES or any(found.rank < best.rank for found in known)
    estimated = next(found for found in later if found.score.images < IMAGES)
    settled = session.settle(estimated)
    assert settled.score.images == IMAGES and settled.parents == estimated.parents
    truth = scorer.mean(settled.architecture)
    assert settled.score.negative_log_likelihood == pytest.approx(truth, abs=1e-7)


def test_equal_scores_teach_nothing_and_stop_nothing(digits):
    result = search(digits, lambda _: 0.5, ("macs=2e7",), GUIDED)
    assert {candidate.score.negative_log_likelihood for candidate in result.history} == {0.5}


def test_features_of_no_network_have_their_width(digits):
    (one,) = features(digits, [digits.largest])
    assert features(digits, []).shape == (0, len(one))
