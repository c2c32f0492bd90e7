"""Codes: every network of a small space has one, and they come in order."""

from __future__ import annotations

import pytest

from vitresnas.errors import MismatchError
from vitresnas.space import Embedding, SearchSpace, StageChoices, load_space
from vitresnas.space.coding import decode, encode, every_code

STAGES = (
    StageChoices((24, 16), 8, 3, (2, 1), (48, 32), (2, 3)),
    StageChoices((48, 32), 8, 1, (2,), (64,), ()),
)
SPACE = SearchSpace("codes", 16, 4, Embedding("convolutional", 8), STAGES, classes=5)


def test_the_codes_are_all_networks_of_the_space_once_and_in_order():
    codes = list(every_code(SPACE))
    networks = [decode(SPACE, code) for code in codes]
    assert codes == sorted(codes)
    assert len(set(networks)) == len(networks) == SPACE.size
    assert all(network in SPACE for network in networks)
    assert [encode(SPACE, network) for network in networks] == codes


def test_a_network_of_another_space_has_no_code():
    with pytest.raises(MismatchError, match="not in the space codes"):
        encode(SPACE, load_space("digits").largest)
