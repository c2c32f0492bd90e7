"""The networks that no other beats in both likelihood and speed."""

from __future__ import annotations

from collections.abc import Sequence

from vitresnas.search.candidate import Candidate


def pareto_front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The front, slowest first: each next one is faster, and worse in likelihood.

    Where speeds are not predicted, fewer MACs stand for more speed.
    """

    def speed(candidate: Candidate) -> float:
        predicted = candidate.predicted_images_per_second
        return -candidate.macs if predicted is None else predicted

    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda found: (-speed(found), *found.rank)):
        if not front or candidate.rank[0] < front[-1].rank[0]:
            front.append(candidate)
    return tuple(reversed(front))
