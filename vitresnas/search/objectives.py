"""What a front is over: the score and any of the costs, each with the direction that is better."""

from __future__ import annotations

from collections.abc import Sequence

from vitresnas.errors import InputError
from vitresnas.search.candidate import Candidate
from vitresnas.search.constraint import COSTS

SCORE = "score"
DEFAULT = (SCORE, "throughput")
OBJECTIVES = (SCORE, *COSTS)


def parse_objectives(text: str) -> tuple[str, ...]:
    """Read `score,throughput,peak_memory`. Raises InputError."""
    return check_objectives(tuple(name.strip() for name in text.split(",")))


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if they make a front. Raises InputError."""
    for name in names:
        if name not in OBJECTIVES:
            raise InputError(f"there is no objective {name!r}: use {', '.join(OBJECTIVES)}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"the objectives are {', '.join(names)}: give at least two, each once, as in "
            f"{','.join(DEFAULT)}"
        )
    return tuple(names)


def values(candidate: Candidate, objectives: Sequence[str]) -> tuple[float, ...]:
    """One number per objective, less being better: throughput comes negated.

    Without a predicted throughput, fewer MACs stand for more speed.
    """
    return tuple(_value(candidate, name) for name in objectives)


def _value(candidate: Candidate, name: str) -> float:
    if name == SCORE:
        return candidate.score.negative_log_likelihood
    if name == "throughput" and candidate.predicted_images_per_second is None:
        return float(candidate.macs)
    cost = candidate.cost(name)
    return -cost if COSTS[name].at_least else cost
