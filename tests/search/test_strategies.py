"""Every strategy keeps the same promises; random and NSGA-II keep those of their own."""

from __future__ import annotations

from random import Random

import pytest

from vitresnas.errors import InputError
from vitresnas.search import (
    Constraint,
    Evolution,
    Nsga2,
    RandomSearch,
    Score,
    pareto_front,
    search,
)
from vitresnas.search.engine import Session
from vitresnas.search.objectives import parse_objectives, values
from vitresnas.search.strategies import STRATEGIES, check_strategy, create_strategy, describe
from vitresnas.space import load_space, macs, parameters

SMALL = [
    Evolution(initial=24, iterations=3, parents=8, mutants=6, crossovers=6),
    RandomSearch(draws=60, continued_draws=20),
    Nsga2(("score", "throughput", "parameters"), population=12, generations=4),
]
by_name = pytest.mark.parametrize("strategy", SMALL, ids=lambda strategy: strategy.name)


@by_name
def test_every_strategy_spends_its_budget_inside_the_bounds_and_repeats_itself(
    digits, prices, formula_score, strategy
):
    bound = Constraint("throughput", 1.8 * prices.images_per_second(digits.largest))
    constraints = (bound, Constraint("parameters", 2e6))

    def run(seed):
        return search(
            digits, formula_score, constraints, throughput=prices, strategy=strategy, seed=seed
        )

    result = run(3)
    assert len(result.history) == strategy.budget == 60
    for candidate in result.history:
        assert candidate.architecture in digits
        assert prices.images_per_second(candidate.architecture) >= bound.bound
        assert parameters(candidate.architecture) <= 2e6
    assert run(3) == result and run(4).history != result.history
    # Bred only from what was known.
    seen: set[str] = set()
    for candidate in result.history:
        assert set(candidate.parents) <= seen
        seen.add(candidate.id)


@by_name
def test_every_strategy_searches_a_handful_of_networks_whole_and_ends(
    handful, prices, formula_score, strategy
):
    result = search(handful, formula_score, throughput=prices, strategy=strategy)
    assert 0.8 * handful.size <= len(result.history) <= handful.size


@by_name
def test_every_strategy_goes_on_in_a_later_round(digits, prices, formula_score, strategy):
    first = Constraint("throughput", 1.5 * prices.images_per_second(digits.largest))
    session = Session(digits, formula_score, (first,), prices, strategy)
    history = session.run().history
    tighter = Constraint("throughput", 1.2 * first.bound)
    more = session.round(2, (tighter,), history)
    assert more and not {c.id for c in more} & {c.id for c in history}
    assert all(c.cost("throughput") >= tighter.bound for c in more)


@pytest.mark.parametrize("space", ["digits", "tiny"])
def test_strategies_of_one_space_score_equally_many_unless_they_race(space):
    strategies = [create_strategy(name, load_space(space)) for name in STRATEGIES]
    budgets = {found.budget for found in strategies if not hasattr(found, "racing")}
    assert len(budgets) == 1


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("candidates", [2, 13, 300, 4000])
def test_a_strategy_comes_in_the_size_asked_for(name, candidates):
    space = load_space("cifar")
    usual = create_strategy(name, space)
    assert create_strategy(name, space, candidates=usual.budget) == usual
    found = create_strategy(name, space, candidates=candidates).budget
    if name in ("evolution", "random"):
        assert found == max(candidates, 3 if name == "evolution" else 1)
    else:
        assert abs(found - candidates) <= max(100, candidates / 10)
    with pytest.raises(InputError, match="candidates is 1: use at least 2"):
        create_strategy(name, space, candidates=1)


def test_random_draws_are_uniform_among_what_keeps_the_bounds(handful):
    bound = Constraint("macs", sorted(macs(handful.sample(Random(i))) for i in range(50))[25])
    found = search(handful, lambda a: 1.0, (bound,), strategy=RandomSearch(draws=100))
    kept = {a for a in map(handful.sample, map(Random, range(500))) if macs(a) <= bound.bound}
    assert {candidate.architecture for candidate in found.history} == kept
    firsts = [
        search(handful, lambda a: 1.0, (bound,), strategy=RandomSearch(draws=1), seed=seed)
        .history[0]
        .id
        for seed in range(200)
    ]
    assert set(firsts) == {a.id for a in kept}


def test_random_draws_are_steered_where_hardly_anything_keeps_the_bounds(digits, formula_score):
    bound = Constraint("macs", 1.1 * macs(digits.smallest))
    result = search(digits, formula_score, (bound,), strategy=RandomSearch(draws=10))
    assert len(result.history) == 10 and max(c.macs for c in result.history) <= bound.bound


def test_nsga2_comes_to_a_wider_front_than_as_many_random_draws(digits):
    ideal = digits.sample(Random(7))

    def distance(architecture):
        pairs = zip(architecture.stages, ideal.stages, strict=True)
        return Score(
            1.0
            + sum(
                (ours.embed != theirs.embed)
                + sum(a != b for a, b in zip(ours.blocks, theirs.blocks, strict=True))
                for ours, theirs in pairs
            )
        )

    objectives = ("score", "macs")

    def area(strategy):
        """The share of the box below the worst of both that the front dominates."""
        found = search(digits, distance, strategy=strategy)
        points = sorted(values(c, objectives) for c in pareto_front(found.history, objectives))
        total, highest = 0.0, float(macs(digits.largest))
        for loss, cost in points:
            total += (16 - loss) * (highest - cost)
            highest = cost
        return total

    nsga2 = Nsga2(objectives, population=20, generations=9)
    assert area(nsga2) > 1.1 * area(RandomSearch(draws=200))


def test_the_front_of_nsga2_is_over_its_objectives(digits, formula_score):
    strategy = Nsga2(("score", "parameters", "macs"), population=12, generations=3)
    result = search(digits, formula_score, strategy=strategy)
    points = {c.id: values(c, strategy.objectives) for c in result.history}
    for identifier, point in points.items():
        beaten = any(
            all(a <= b for a, b in zip(other, point, strict=True)) and other != point
            for other in points.values()
        )
        assert beaten != (identifier in result.pareto)


def test_nsga2_by_default_needs_a_prediction_of_throughput(digits, formula_score):
    with pytest.raises(InputError, match="throughput as a constraint or objective"):
        search(digits, formula_score, strategy=Nsga2())


@pytest.mark.parametrize("text", ["score", "score,score", "score,speed", ""])
def test_objectives_that_make_no_front_are_refused(text):
    with pytest.raises(InputError, match="objective"):
        parse_objectives(text)


def test_objectives_belong_to_nsga2_alone():
    with pytest.raises(InputError, match="evolution minimises only the score"):
        check_strategy("evolution", ("score", "macs"))
    with pytest.raises(InputError, match="no strategy 'annealing'"):
        check_strategy("annealing")


def test_a_description_holds_everything_that_decides_a_history(digits):
    found = describe(create_strategy("nsga2", digits, ("score", "macs")))
    assert found["objectives"] == ("score", "macs") and found["population"] == 24
    assert found["pymoo"].startswith("0.")
