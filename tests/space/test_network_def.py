from typing import Any

import pytest

from vitresnas.errors import SpaceError
from vitresnas.space import NETWORKS, Architecture, Block, Embedding, Stage
from vitresnas.space.network_def import read_network_def


def written_by_the_authors(architecture: Architecture, embedding: tuple[int, ...]) -> Any:
    """The authors' tuple of a network; removed blocks keep some width, marked as not kept."""
    items: list[tuple[Any, ...]] = [embedding]
    width = architecture.stages[0].embed
    for index, stage in enumerate(architecture.stages):
        if index:
            items.append((3, width, stage.embed))
        width = stage.embed
        for block in stage.blocks:
            heads, hidden = (block.heads, block.hidden) if block else (1, 1)
            items.append(
                (1, (width, heads, stage.head_dim), (width, hidden), int(block is not None))
            )
    return (*items, (2, width, architecture.classes))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_authors_tuples_of_published_networks_read_as_our_networks(name):
    network = NETWORKS[name]
    definition = written_by_the_authors(network, (4, network.stages[0].embed))
    assert Architecture.from_network_def(definition) == network
    assert Architecture.from_network_def(read_network_def(repr(definition))) == network


@pytest.mark.parametrize(
    ("item", "embedding"),
    [
        ((0, 16), Embedding("linear", 0)),
        ((4, 16), Embedding("convolutional", 24)),
        ((5, 16, 10), Embedding("convolutional", 10)),
    ],
)
def test_embeddings_and_removed_blocks_are_read(item, embedding):
    expected = Architecture(
        image_size=56,
        patch_size=14,
        embedding=embedding,
        stages=(Stage(16, 8, (None, Block(2, 32))), Stage(24, 4, (Block(1, 8), None))),
        classes=7,
        prefix_tokens=2,
    )
    found = Architecture.from_network_def(
        written_by_the_authors(expected, item), image_size=56, prefix_tokens=2
    )
    assert found == expected


HEAD, BLOCK = (2, 16, 7), (1, (16, 2, 8), (16, 32), 1)


@pytest.mark.parametrize(
    ("definition", "sentence"),
    [
        ((), "begins with an embedding"),
        (((4, 16), BLOCK), "ends with a head"),
        ((BLOCK, HEAD), r"item 0, \(1, .* belongs first, and once"),
        (((4, 16), (4, 16), BLOCK, HEAD), r"item 1, \(4, 16\): .* once"),
        (((4, 16), BLOCK, HEAD, BLOCK), "item 3, .* nothing may follow the head"),
        (((4, 16), (9, 16), HEAD), r"item 1, \(9, 16\): it has no known kind"),
        (((4, 16), 3, HEAD), "item 1, 3: it is not a tuple of whole numbers"),
        (((4, 16), (1, (16, "2", 8), (16, 32), 1), HEAD), "item 1, .* not a tuple of whole"),
        (((4, 16), (1, (16, 0, 8), (16, 32), 1), HEAD), "item 1, .* heads 0"),
        (((4, 16), (1, (16, 2, 8), (24, 32), 1), HEAD), "item 1, .* width 24 where the .* have 16"),
        (((4, 16), BLOCK, (1, (16, 2, 4), (16, 32), 1), HEAD), "item 3, .* head dims 4, 8"),
        (((4, 16), HEAD), "item 1, .* head dims none"),
        (((4, 16), BLOCK, (3, 16, 8), (1, (8, 2, 8), (8, 32), 1), (2, 8, 7)), "can only keep"),
    ],
)
def test_a_broken_tuple_is_refused_by_item(definition, sentence):
    with pytest.raises(SpaceError, match=sentence):
        Architecture.from_network_def(definition)


@pytest.mark.parametrize("text", ["", "((4, 176)", "__import__('os').getcwd()", "tiny", "1 + x"])
def test_text_is_read_as_literals_and_never_run(text):
    with pytest.raises(SpaceError, match="is not a nested tuple of numbers: write it like"):
        read_network_def(text)


def test_a_lone_number_is_no_definition():
    with pytest.raises(SpaceError, match="the network definition is 4, expected a nested tuple"):
        read_network_def("4")
