"""Evolution on formulas: it ends, stays inside, repeats itself, and scores nothing twice."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from random import Random

import pytest

from vitresnas.errors import InputError, UnreachableTarget
from vitresnas.search import Constraint, Evolution, search
from vitresnas.search.engine import Session
from vitresnas.search.reach import throughput_reach
from vitresnas.space import load_space, macs, parameters

SMALL = Evolution(initial=30, iterations=4, parents=10, mutants=8, crossovers=8, patience=300)


def bound(prices, space, times):
    return Constraint("throughput", times * prices.images_per_second(space.largest))


def test_it_ends_within_its_budget_inside_the_space_and_the_bounds(digits, prices, formula_score):
    constraints = (bound(prices, digits, 2), Constraint("parameters", 2e6))
    result = search(digits, formula_score, constraints, throughput=prices, strategy=SMALL)
    assert len(result.history) == SMALL.budget
    for candidate in result.history:
        assert candidate.architecture in digits
        assert prices.images_per_second(candidate.architecture) >= constraints[0].bound
        assert parameters(candidate.architecture) <= 2e6


def test_the_same_seed_repeats_and_another_does_not(digits, prices, formula_score):
    def run(seed):
        constraints = (bound(prices, digits, 2),)
        return search(
            digits, formula_score, constraints, throughput=prices, strategy=SMALL, seed=seed
        )

    assert run(3) == run(3)
    assert run(3).history != run(4).history


def test_no_network_is_scored_twice(digits, prices, formula_score):
    scored = []

    def count(architecture):
        scored.append(architecture)
        return formula_score(architecture)

    result = search(digits, count, (bound(prices, digits, 2),), throughput=prices, strategy=SMALL)
    assert len(scored) == len(set(scored))
    assert set(scored) == {c.architecture for c in result.history} | {digits.largest}


def test_it_comes_closer_to_an_ideal_than_as_many_random_draws(digits):
    ideal = digits.sample(Random(7))

    def distance(architecture):
        """How many blocks and widths differ from the ideal's."""
        pairs = zip(architecture.stages, ideal.stages, strict=True)
        return 1.0 + sum(
            (ours.embed != theirs.embed)
            + sum(a != b for a, b in zip(ours.blocks, theirs.blocks, strict=True))
            for ours, theirs in pairs
        )

    result = search(digits, distance, strategy=Evolution.for_space(digits))
    rng = Random(0)
    drawn = min(distance(digits.sample(rng)) for _ in result.history)
    assert result.selected.candidate.score.negative_log_likelihood < drawn


def test_parents_are_earlier_candidates_and_first_draws_have_none(digits, formula_score):
    history = search(digits, formula_score, strategy=SMALL).history
    assert all(candidate.parents == () for candidate in history[: SMALL.initial])
    seen = {candidate.id for candidate in history[: SMALL.initial]}
    for candidate in history[SMALL.initial :]:
        assert 1 <= len(candidate.parents) <= 2 and set(candidate.parents) <= seen
        seen.add(candidate.id)


def test_a_space_with_a_handful_of_networks_is_searched_whole_and_then_ends(handful, formula_score):
    result = search(handful, formula_score)
    assert len(result.history) == handful.size
    scores = [candidate.score.negative_log_likelihood for candidate in result.history]
    assert result.selected.candidate.score.negative_log_likelihood == min(scores)


def test_beside_the_fastest_network_it_still_finds_one(digits, prices, formula_score):
    fastest = throughput_reach(digits, prices)
    constraint = Constraint("throughput", fastest.maximum)
    result = search(digits, formula_score, (constraint,), throughput=prices, strategy=SMALL)
    assert [candidate.architecture for candidate in result.history] == [fastest.fastest]


def test_constraints_that_cannot_be_kept_together_are_refused(digits, prices, formula_score):
    # Each alone can be kept; the fastest network by these prices is not the one of least MACs.
    constraints = (
        Constraint("throughput", throughput_reach(digits, prices).maximum),
        Constraint("macs", macs(digits.smallest)),
    )
    with pytest.raises(UnreachableTarget, match=r"throughput >= .* and macs <= "):
        search(digits, formula_score, constraints, throughput=prices, strategy=SMALL)


def test_a_bound_that_everything_keeps_draws_from_the_whole_space(digits, prices, formula_score):
    slow = Constraint("throughput", 0.5 * throughput_reach(digits, prices).minimum)
    result = search(digits, formula_score, (slow,), throughput=prices, strategy=SMALL)
    sizes = [candidate.macs for candidate in result.history[: SMALL.initial]]
    assert max(sizes) > 2 * min(sizes)


def test_first_draws_fall_into_the_band(digits, prices, formula_score):
    constraint = bound(prices, digits, 2)
    result = search(digits, formula_score, (constraint,), throughput=prices, strategy=SMALL)
    inside = [
        candidate.predicted_images_per_second <= SMALL.band * constraint.bound
        for candidate in result.history[: SMALL.initial]
    ]
    assert sum(inside) >= 0.7 * SMALL.initial


def test_the_papers_sizes_are_the_defaults_where_networks_are_large():
    assert Evolution.for_space(load_space("tiny")).budget == 500 + 19 * 150
    assert Evolution.for_space(load_space("digits")).budget >= 300


def test_a_score_may_be_a_plain_number_but_not_nan(digits):
    result = search(digits, lambda architecture: 1 / macs(architecture), strategy=SMALL)
    assert result.selected.candidate.score.accuracy is None
    with pytest.raises(InputError, match="nan"):
        search(digits, lambda architecture: float("nan"), strategy=SMALL)


def test_a_constraint_given_twice_or_without_its_predictor_is_refused(digits, formula_score):
    twice = (Constraint("macs", 2e7), Constraint("macs", 1e7))
    with pytest.raises(InputError, match="macs is bounded twice"):
        search(digits, formula_score, twice)
    with pytest.raises(InputError, match="latency table"):
        search(digits, formula_score, (Constraint("throughput", 10),))


def test_a_later_round_starts_from_what_is_known(digits, prices, formula_score):
    first = bound(prices, digits, 1.5)
    session = Session(digits, formula_score, (first,), prices, SMALL)
    history = session.run().history
    tighter = replace(first, bound=first.bound * 1.3)
    more = session.round(2, (tighter,), history)
    assert more and not {c.id for c in more} & {c.id for c in history}
    assert all(c.predicted_images_per_second >= tighter.bound for c in more)


def test_search_with_a_formula_does_not_import_torch():
    script = """
import sys
import time
from vitresnas.search import Constraint, Evolution, search
from vitresnas.space import load_space, macs
strategy = Evolution(initial=5, iterations=1, parents=3, mutants=2, crossovers=2)
found = search(load_space("digits"), lambda a: 1 / macs(a), [Constraint("macs", 2e7)],
               strategy=strategy)
assert len(found.history) == 9 and "torch" not in sys.modules, sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_several_workers_give_the_history_of_one(digits, prices, formula_score):
    def slowly(architecture):
        time.sleep(int(architecture.id[0], 16) * 2e-4)  # so that they finish out of order
        return formula_score(architecture)

    constraints = (bound(prices, digits, 2),)
    alone = Session(digits, slowly, constraints, prices, SMALL).run()
    assert Session(digits, slowly, constraints, prices, SMALL, workers=4).run() == alone


def test_an_error_in_one_worker_ends_the_search_at_once(digits):
    scored = []

    def fail(architecture):
        scored.append(architecture)
        if len(scored) == 3:
            raise InputError("broken")
        time.sleep(0.01)
        return 1.0

    with pytest.raises(InputError, match="broken"):
        Session(digits, fail, (), strategy=SMALL, workers=2).run()
    assert len(scored) < 10
