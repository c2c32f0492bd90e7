"""The pieces of a network, run one after the other, are the network."""

from dataclasses import replace
from functools import partial
from random import Random

import pytest
import torch

from vitresnas.latency.weights import SharedWeights
from vitresnas.models import create_model
from vitresnas.models.pieces import (
    AttentionHalf,
    ClassifierEnd,
    MlpHalf,
    build_piece,
    piece_input_shape,
    pieces_of,
)
from vitresnas.space import Operation, operations


def _with_weights(piece, original):
    """A piece that was built alone, with the weights of the same piece of a network."""
    if isinstance(piece, AttentionHalf):
        block = original.block
        piece.block.norm1, piece.block.attention = block.norm1, block.attention
    elif isinstance(piece, MlpHalf):
        piece.block.norm2, piece.block.mlp = original.block.norm2, original.block.mlp
    elif isinstance(piece, ClassifierEnd):
        network = original.network
        piece.network.norm, piece.network.head = network.norm, network.head
        piece.network.distillation_head = network.distillation_head
    else:
        piece.load_state_dict(original.state_dict())
    return piece.eval()


@pytest.mark.parametrize("prefix_tokens", [1, 2])
def test_pieces_with_a_network_s_weights_compute_its_logits(small_space, prefix_tokens):
    space = replace(small_space, prefix_tokens=prefix_tokens)
    torch.manual_seed(0)
    for seed in range(4):
        architecture = space.sample(Random(seed))
        network = create_model(architecture).eval()
        images = torch.randn(3, 3, 8, 8)
        x = y = images
        with torch.no_grad():
            pieces = zip(operations(architecture), pieces_of(network), strict=True)
            for operation, own_piece in pieces:
                assert tuple(x.shape) == piece_input_shape(operation, 3)
                x, y = _with_weights(build_piece(operation), own_piece)(x), own_piece(y)
            torch.testing.assert_close(x, network(images))
            assert torch.equal(x, y)


def test_every_operation_of_a_space_can_be_built_and_run(small_space):
    weights = SharedWeights(1, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        for operation in small_space.operations():
            piece = weights.build(partial(build_piece, operation))
            out = piece(torch.randn(piece_input_shape(operation, 2)))
            assert torch.isfinite(out).all()


def test_an_unknown_kind_of_operation_names_where_to_add_it():
    class Pooling(Operation):
        kind = "pooling"

        def __str__(self):
            return "pooling()"

    with pytest.raises(TypeError, match=r"pooling\(\).*pieces.py"):
        build_piece(Pooling())


def test_networks_share_one_buffer_of_weights(small_space):
    elements = 2 * sum(p.numel() for p in create_model(small_space.largest).parameters())
    weights = SharedWeights(elements, torch.device("cpu"), torch.float32)
    networks = [
        weights.build(partial(create_model, small_space.sample(Random(seed)))) for seed in range(20)
    ]
    storages = {p.untyped_storage().data_ptr() for net in networks for p in net.parameters()}
    assert len(storages) == 1
    total = sum(p.numel() for net in networks for p in net.parameters())
    assert total > 2 * elements
    with torch.inference_mode():
        assert all(torch.isfinite(net(torch.randn(2, 3, 8, 8))).all() for net in networks)
