"""Search: pick the best network of a space under bounds, and prove its speed. No torch in here;
scoring by a super-network, timing and the command import it where they need it."""

from vitresnas.search.best import best_under
from vitresnas.search.candidate import Candidate, Finalist, Score, Speed
from vitresnas.search.check import Check
from vitresnas.search.constraint import Constraint, Target, parse_constraint
from vitresnas.search.engine import search
from vitresnas.search.evolution import Evolution
from vitresnas.search.front import pareto_front
from vitresnas.search.log import EvaluationLog
from vitresnas.search.nsga2 import Nsga2
from vitresnas.search.random_search import RandomSearch
from vitresnas.search.result import Round, SearchResult

__all__ = [
    "Candidate",
    "Check",
    "Constraint",
    "EvaluationLog",
    "Evolution",
    "Finalist",
    "Nsga2",
    "RandomSearch",
    "Round",
    "Score",
    "SearchResult",
    "Speed",
    "Target",
    "best_under",
    "pareto_front",
    "parse_constraint",
    "search",
]
