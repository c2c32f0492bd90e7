"""A space small enough for float64 and odd enough to catch slips: widths off every tile grid."""

from __future__ import annotations

import pytest

from vitresnas.space import Embedding, SearchSpace, StageChoices


@pytest.fixture(params=[1, 2], ids=["one-prefix-token", "two-prefix-tokens"])
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return toy_space(prefix_tokens=request.param)


def toy_space(prefix_tokens: int = 1) -> SearchSpace:
    stages = (
        StageChoices((12, 10, 7), 4, 3, (3, 2, 1), (20, 13, 6), (2,)),
        StageChoices((20, 16, 13), 4, 3, (4, 2), (24, 9), (2,)),
        StageChoices((28, 22), 8, 2, (3, 2), (30, 17), (2,)),
    )
    return SearchSpace(
        "toy", 16, 2, Embedding("convolutional", 5), stages, classes=6, prefix_tokens=prefix_tokens
    )
