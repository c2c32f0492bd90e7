"""The front holds every network that nothing beats, and nothing else."""

from __future__ import annotations

from random import Random

from vitresnas.search import pareto_front


def test_no_candidate_beats_one_of_the_front_and_all_others_are_beaten(digits, candidate_of):
    rng = Random(1)
    # Few distinct values, so that ties occur.
    candidates = [
        candidate_of(digits.sample(rng), rng.randrange(20) / 10, float(rng.randrange(1, 20)))
        for _ in range(200)
    ]
    front = pareto_front(candidates)

    def key(candidate):
        return candidate.predicted_images_per_second, -candidate.rank[0]

    def beats(a, b):
        return all(x >= y for x, y in zip(key(a), key(b), strict=True)) and key(a) != key(b)

    for candidate in candidates:
        beaten = any(beats(other, candidate) for other in candidates)
        if candidate in front:
            assert not beaten
        else:
            assert beaten or key(candidate) in map(key, front)
    speeds = [key(candidate)[0] for candidate in front]
    assert speeds == sorted(set(speeds))


def test_without_speeds_fewer_macs_are_better(digits, candidate_of):
    small, large = candidate_of(digits.smallest, 0.5, None), candidate_of(digits.largest, 0.5, None)
    assert pareto_front([large, small]) == (small,)
