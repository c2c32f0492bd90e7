"""The networks that no other beats in every objective at once."""

from __future__ import annotations

from collections.abc import Sequence

from vitresnas.search.candidate import Candidate
from vitresnas.search.objectives import DEFAULT, values


def pareto_front(
    candidates: Sequence[Candidate], objectives: Sequence[str] = DEFAULT
) -> tuple[Candidate, ...]:
    """The front, ordered by its second objective, the best of it last.

    Of score and throughput: slowest first, each next one is faster, and worse in likelihood.
    Where speeds are not predicted, fewer MACs stand for more speed. Of networks that are equal in
    all objectives the one of least id stands.
    """
    placed = [(values(found, objectives), found.id, found) for found in candidates]
    # Sorted by all objectives, nobody is beaten by one that comes later.
    placed.sort(key=lambda item: (item[0][1:], item[0][0], item[1]))
    front: list[tuple[tuple[float, ...], Candidate]] = []
    for point, _, found in placed:
        if not any(all(map(float.__le__, best, point)) for best, _ in front):
            front.append((point, found))
    return tuple(found for _, found in reversed(front))
