"""The best network of a finished search under other bounds, without searching again.

    vitresnas best runs/search --constraint macs=10M --constraint parameters=2M

A search stores every candidate with all the costs its latency table predicts, so another bound is a
look-up in its result. Only finalists were timed; the costs of all others are predictions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json
from vitresnas.errors import InputError, UnreachableTarget
from vitresnas.files import JsonObject
from vitresnas.search.candidate import Candidate, Finalist
from vitresnas.search.constraint import COSTS, Constraint, parse_constraint, refuse_twice, slack
from vitresnas.search.result import RESULT, SearchResult


def best_under(result: SearchResult, constraints: Sequence[Constraint]) -> Finalist:
    """The best-scoring network that a search met and whose predictions keep the constraints.

    With its measured speed and checks where the search timed it. Raises UnreachableTarget, naming
    what the search's networks reach, and InputError for a cost that the result does not tell.
    """
    refuse_twice(constraints)
    met = candidates_of(result)
    bounds = tuple(constraints)
    kept = [found for found in met if slack(bounds, _costs(found, bounds)) >= 1]
    if not kept:
        raise UnreachableTarget(
            f"none of the {len(met)} networks of this search keeps "
            f"{' and '.join(map(str, bounds))}: {_box(met, bounds)}; loosen a bound, or search "
            "again with it"
        )
    best = min(kept, key=lambda found: found.rank)
    timed = (one for found in result.rounds for one in found.finalists)
    return next((one for one in timed if one.candidate.id == best.id), Finalist(best))


def candidates_of(result: SearchResult) -> tuple[Candidate, ...]:
    """Every network that a search scored, those of later rounds included."""
    later = (candidate for found in result.rounds for candidate in found.candidates)
    return (*result.history, *later)


def _costs(candidate: Candidate, bounds: Sequence[Constraint]) -> dict[str, float]:
    return {bound.name: candidate.cost(bound.name) for bound in bounds}


def _box(candidates: Sequence[Candidate], bounds: Sequence[Constraint]) -> str:
    """What the candidates reach: each cost alone, and with the other bounds kept."""
    sides = []
    for bound in bounds:
        others = tuple(one for one in bounds if one != bound)
        values = [found.cost(bound.name) for found in candidates]
        kept = [
            found.cost(bound.name)
            for found in candidates
            if slack(others, _costs(found, others)) >= 1
        ]
        side = f"{bound.name} from {min(values):,.6g} to {max(values):,.6g}"
        if others and kept:
            best = max(kept) if bound.cost.at_least else min(kept)
            side += f" ({best:,.6g} with the other bounds kept)"
        sides.append(side)
    return "they reach " + ", ".join(sides)


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas best",
        description=__doc__,
        example="vitresnas best runs/search --constraint macs=10M",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a finished search's folder")
    parser.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"may be repeated; names: {', '.join(COSTS)}",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write its architecture there")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    arguments = parser.parse_args(argv)
    constraints = [parse_constraint(text) for text in arguments.constraint]
    result = SearchResult.load(_result_file(arguments.directory))
    found = best_under(result, constraints)
    if arguments.out:
        found.candidate.architecture.save(arguments.out)
    if arguments.json:
        print_json(_document(found, constraints))
    else:
        images = result.largest.candidate.score.images
        print(summary(found, constraints, images if result.estimated(found.candidate) else 0))
    return 0


def _result_file(directory: Path) -> Path:
    if directory.is_file():
        return directory
    if not (directory / RESULT).exists():
        raise InputError(
            f"{directory} holds no {RESULT}: give the --out folder of a search that is finished"
        )
    return directory / RESULT


def _document(found: Finalist, constraints: Sequence[Constraint]) -> JsonObject:
    return {"best": found.to_json(), "constraints": [one.to_json() for one in constraints]}


def summary(found: Finalist, constraints: Sequence[Constraint], images: int = 0) -> str:
    """A few lines for people. images: that a full score is on, where this one is an estimate."""
    candidate = found.candidate
    lines = [
        f"{candidate.id}: negative log-likelihood {candidate.score.negative_log_likelihood:.4f}"
    ]
    if candidate.score.accuracy is not None:
        lines[0] += f", accuracy {candidate.score.accuracy:.4f}"
    if images:
        lines[0] += f", estimated: it saw {candidate.score.images} of {images} images"
    lines += [f"  {one}: predicted {candidate.cost(one.name):,.6g}" for one in constraints]
    if found.speed:
        low, high = found.speed.interval_95
        lines.append(
            f"  measured {found.speed.images_per_second:,.0f} images/s ({low:,.0f} to {high:,.0f})"
        )
    else:
        lines.append("  not timed: only the finalists of the search were")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
