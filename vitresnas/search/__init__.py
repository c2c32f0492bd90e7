"""Search: pick the best network of a space under bounds, and prove its speed. No torch in here;
scoring by a super-network, timing and the command import it where they need it."""

from vitresnas.search.candidate import Candidate, Finalist, Score, Speed
from vitresnas.search.constraint import Constraint, Target, parse_constraint
from vitresnas.search.engine import search
from vitresnas.search.evaluate import EvaluationLog
from vitresnas.search.evolution import Evolution
from vitresnas.search.front import pareto_front
from vitresnas.search.result import Round, SearchResult

__all__ = [
    "Candidate",
    "Constraint",
    "EvaluationLog",
    "Evolution",
    "Finalist",
    "Round",
    "Score",
    "SearchResult",
    "Speed",
    "Target",
    "pareto_front",
    "parse_constraint",
    "search",
]
