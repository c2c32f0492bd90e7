import pytest

from vitresnas.space import Embedding, SearchSpace, StageChoices


@pytest.fixture
def toy_space() -> SearchSpace:
    """Small enough to list every network: 2 stages, with neighbours that are both skippable."""
    return SearchSpace(
        name="toy",
        image_size=8,
        patch_size=2,
        embedding=Embedding("convolutional", 4),
        stages=(
            StageChoices((16, 8), 8, 3, (2, 1), (16, 8), (2, 3)),
            StageChoices((24, 16), 8, 2, (3, 2), (32,), (1,)),
        ),
        classes=5,
    )
