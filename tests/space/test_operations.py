from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from vitresnas.errors import FileFormatError
from vitresnas.space import (
    NETWORKS,
    SPACES,
    AttentionOperation,
    Embedding,
    EmbeddingOperation,
    HeadOperation,
    MlpOperation,
    ReductionOperation,
    macs,
    operation_from_json,
    operations,
    parameters,
)

# The golden figures of the facts: training parameters, inference parameters, MACs at 224 pixels.
GOLDEN = {
    "tiny": (41_498_552, 40_793_552, 1_782_630_272),
    "small": (64_605_108, 63_724_108, 2_845_501_856),
    "medium": (97_323_672, 96_442_672, 4_513_135_936),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_published_networks_have_the_golden_figures(name):
    network = NETWORKS[name]
    found = (parameters(network, patch_head=True), parameters(network), macs(network))
    assert found == GOLDEN[name]


@pytest.mark.parametrize(("name", "expected"), [("tiny", 3_497_553_920), ("small", 6_260_342_784)])
def test_largest_networks_have_the_golden_macs(name, expected):
    assert macs(SPACES[name].largest) == expected


def test_the_space_of_medium_is_small():
    medium, small = NETWORKS["medium"], SPACES["small"]
    for stage, choices in zip(medium.stages, small.stages, strict=True):
        assert stage.embed in choices.embed
        assert {block.heads for block in stage.kept} <= set(choices.heads)
        assert {block.hidden for block in stage.kept} <= set(choices.hidden)


def test_operations_come_in_the_order_in_which_a_network_runs():
    kinds = [operation.kind for operation in operations(NETWORKS["tiny"])]
    halves = ["attention", "mlp"]
    assert kinds == [
        "embedding",
        *halves * 5,
        "reduction",
        *halves * 6,
        "reduction",
        *halves * 5,
        "head",
    ]


def test_equal_blocks_are_one_operation():
    counted = Counter(operations(SPACES["digits"].largest))
    assert counted[AttentionOperation(65, 64, 4, 16)] == 4
    assert len(counted) == 1 + 3 * 2 + 2 + 1


@pytest.mark.parametrize(
    ("operation", "macs_by_hand", "parameters_by_hand"),
    [
        # One image of 8x8 pixels, patch 2; every product written out.
        (EmbeddingOperation(8, 2, 3, 4, 1, 6), 16 * (108 + 2 * 144) + 16 * 24, 396 + 24 + 30 + 108),
        (EmbeddingOperation(8, 2, 3, 0, 1, 6), 16 * 12 * 6, 12 * 6 + 6 + 6 + 17 * 6),
        (AttentionOperation(5, 6, 2, 4), 5 * 6 * 24 + 2 * 25 * 8 + 5 * 8 * 6, 12 + 168 + 54),
        (MlpOperation(5, 6, 10), 2 * 5 * 6 * 10, 12 + 70 + 66),
        (ReductionOperation(4, 2, 6, 8), 4 * 9 * 48 + 2 * 48, 12 + 432 + 8 + 56 + 4 * 8),
        (HeadOperation(5, 1, 6, 3), 18, 12 + 21),
        (HeadOperation(6, 2, 6, 3), 18, 12 + 42),
    ],
)
def test_macs_and_parameters_agree_with_the_sums_by_hand(
    operation, macs_by_hand, parameters_by_hand
):
    assert operation.macs == macs_by_hand
    assert operation.parameters == parameters_by_hand


def test_a_second_prefix_token_adds_its_token_position_and_head():
    one = SPACES["digits"].largest
    two = replace(one, prefix_tokens=2)
    assert parameters(two) - parameters(one) == 2 * 64 + (256 + 1) * 10


def test_the_patch_head_counts_in_training_only():
    digits = SPACES["digits"].largest
    assert parameters(digits, patch_head=True) - parameters(digits) == 257 * 10


@pytest.mark.parametrize("prefix_tokens", [1, 2])
@pytest.mark.parametrize("embedding", [Embedding(), Embedding("linear", 0)])
def test_operations_round_trip_through_json(prefix_tokens, embedding):
    network = replace(
        SPACES["tiny"].sample(Random(1)), prefix_tokens=prefix_tokens, embedding=embedding
    )
    for operation in operations(network):
        assert operation_from_json(operation.to_json()) == operation


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"kind": "pooling"}, "\"kind\" is 'pooling', expected one of embedding, attention"),
        ({"kind": "mlp", "tokens": 5, "width": 6}, 'lacks the field "hidden"'),
        ({"kind": "mlp", "tokens": -5, "width": 6, "hidden": 2}, '"tokens" is -5'),
        (
            {"kind": "mlp", "tokens": 5, "width": 6, "hidden": 2, "heads": 2},
            r'unknown field "heads": .* \(of a mlp operation\)',
        ),
    ],
)
def test_an_unknown_operation_is_refused_by_field(value, sentence):
    with pytest.raises(FileFormatError, match=sentence):
        operation_from_json(value)
