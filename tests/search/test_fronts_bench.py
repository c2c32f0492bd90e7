"""bench/search_fronts.py: the area that a front covers."""

import pytest
from search_fronts import hypervolume, points, whole


def test_the_true_front_alone_covers_all():
    likelihood, speed = points().T
    front = [
        row
        for row in range(len(likelihood))
        if not ((likelihood > likelihood[row]) & (speed >= speed[row])).any()
    ]
    assert 1 < len(front) < 100
    assert hypervolume(front) == pytest.approx(whole(), rel=1e-12)


def test_a_single_network_covers_its_rectangle_and_more_never_cover_less():
    corner = points().min(axis=0)
    one = points()[7]
    assert hypervolume([7]) == pytest.approx(float((one - corner).prod()), rel=1e-12)
    assert hypervolume([7, 7]) == hypervolume([7]) <= hypervolume([7, 100, 3000]) < whole()
