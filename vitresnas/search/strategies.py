"""The strategies by name, as a command line chooses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.util import find_spec

from vitresnas.errors import InputError, how_to_install
from vitresnas.files import JsonObject
from vitresnas.search.evolution import Evolution
from vitresnas.search.guided import Guided
from vitresnas.search.nsga2 import Nsga2
from vitresnas.search.objectives import check_objectives
from vitresnas.search.random_search import RandomSearch
from vitresnas.search.strategy import Strategy
from vitresnas.space import SearchSpace

Named = Evolution | RandomSearch | Nsga2 | Guided
LEAST_CANDIDATES = 2

STRATEGIES: dict[str, Callable[[SearchSpace], Named]] = {
    Evolution.name: Evolution.for_space,
    RandomSearch.name: RandomSearch.for_space,
    Nsga2.name: Nsga2.for_space,
    Guided.name: Guided.for_space,
}


def check_strategy(name: str, objectives: tuple[str, ...] = (), processes: int = 1) -> None:
    """Raise InputError for a strategy that is unknown, cannot run here or on so many processes, or
    has no objectives."""
    if name not in STRATEGIES:
        raise InputError(f"there is no strategy {name!r}: use {', '.join(STRATEGIES)}")
    if name == Nsga2.name and find_spec("pymoo") is None:
        raise InputError(f"the strategy nsga2 needs pymoo: {how_to_install('nsga2')}")
    if processes > 1 and name == Guided.name:
        raise InputError(
            f"the strategy {name} scores in one process and this search has {processes}: start it "
            "without torchrun, or choose another strategy"
        )
    if objectives and name != Nsga2.name:
        raise InputError(f"the strategy {name} minimises only the score: leave objectives out")
    if objectives:
        check_objectives(objectives)


def create_strategy(
    name: str,
    space: SearchSpace,
    objectives: tuple[str, ...] = (),
    candidates: int | None = None,
) -> Strategy:
    """A strategy of the size that suits a space, or of about so many candidates.

    Raises InputError.
    """
    check_strategy(name, objectives)
    strategy = STRATEGIES[name](space)
    if candidates is not None:
        if candidates < LEAST_CANDIDATES:
            raise InputError(f"candidates is {candidates}: use at least {LEAST_CANDIDATES}")
        strategy = strategy.sized(candidates)
    if objectives and isinstance(strategy, Nsga2):
        return replace(strategy, objectives=objectives)
    return strategy


def describe(strategy: Strategy) -> JsonObject:
    """Everything about a strategy that decides a history."""
    settings: JsonObject = {"name": strategy.name, **asdict(strategy)}  # type: ignore[call-overload]
    if strategy.name == Nsga2.name:
        settings["pymoo"] = version("pymoo")
    return settings
