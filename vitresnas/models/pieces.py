"""One piece of a network alone: the real modules of an Operation, and the input they read.

B images, N tokens, C width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn

from vitresnas.models.block import TransformerBlock
from vitresnas.models.embedding import PatchEmbedding
from vitresnas.models.reduction import ResidualSpatialReduction
from vitresnas.models.vit_res import ViTRes, combine_heads
from vitresnas.space.architecture import Architecture, Block, Embedding, Stage
from vitresnas.space.operations import (
    AttentionOperation,
    EmbeddingOperation,
    HeadOperation,
    MlpOperation,
    Operation,
    ReductionOperation,
)


def build_piece(operation: Operation) -> nn.Module:
    """The modules of one operation as a module of one input; a network runs the same code."""
    match operation:
        case EmbeddingOperation():
            return PatchEmbedding(_around_embedding(operation))
        case AttentionOperation(width=width, heads=heads, head_dim=head_dim):
            return AttentionHalf(TransformerBlock(width, head_dim, Block(heads, hidden=1)))
        case MlpOperation(width=width, hidden=hidden):
            return MlpHalf(TransformerBlock(width, 1, Block(heads=1, hidden=hidden)))
        case ReductionOperation(grid=grid, prefix_tokens=prefix):
            widths = (operation.width_in, operation.width_out)
            return ResidualSpatialReduction(*widths, grid, prefix)
        case HeadOperation():
            return ClassifierEnd(ViTRes(_around_head(operation)))
    raise TypeError(f"{operation} has no modules: add its kind to vitresnas/models/pieces.py")


def pieces_of(network: ViTRes) -> Iterator[nn.Module]:
    """The pieces of this very network, in the order of `operations(network.architecture)`.

    Each reads what the one before wrote; together they are the network.
    """
    yield network.embedding
    for stage in network.stages:
        if stage.reduction is not None:
            yield stage.reduction
        for block in stage.blocks:
            yield AttentionHalf(block)
            yield MlpHalf(block)
    yield ClassifierEnd(network)


def piece_input_shape(operation: Operation, batch_size: int) -> tuple[int, ...]:
    """Shape of what `build_piece(operation)` reads."""
    match operation:
        case EmbeddingOperation(image_size=side, channels=channels):
            return (batch_size, channels, side, side)
        case AttentionOperation() | MlpOperation() | HeadOperation():
            return (batch_size, operation.tokens, operation.width)
        case ReductionOperation(grid=grid, prefix_tokens=prefix):
            return (batch_size, prefix + grid * grid, operation.width_in)
    raise TypeError(f"{operation} has no input: add its kind to vitresnas/models/pieces.py")


class AttentionHalf(nn.Module):
    """The first half of a block; its MLP, of one hidden unit, never runs."""

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.block.attend(x_BNC)


class MlpHalf(nn.Module):
    """The second half of a block; its attention, of one channel, never runs."""

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.block.mix(x_BNC)


class ClassifierEnd(nn.Module):
    """What follows the last block: final norm, classifiers, their mean."""

    def __init__(self, network: ViTRes) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BNC: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.network.heads(self.network.norm(x_BNC), patches=False)
        return combine_heads(logits, self.network.training)


def _around_embedding(operation: EmbeddingOperation) -> Architecture:
    """A network of one empty stage that begins with this embedding."""
    kind = "convolutional" if operation.mid_channels else "linear"
    return Architecture(
        image_size=operation.image_size,
        patch_size=operation.patch_size,
        embedding=Embedding(kind, operation.mid_channels),
        stages=(Stage(operation.width, 1, ()),),
        classes=1,
        prefix_tokens=operation.prefix_tokens,
        channels=operation.channels,
    )


def _around_head(operation: HeadOperation) -> Architecture:
    """A network of one empty stage that ends with this head."""
    grid = math.isqrt(operation.tokens - operation.prefix_tokens)
    return Architecture(
        image_size=2 * grid,
        patch_size=2,
        embedding=Embedding("linear", 0),
        stages=(Stage(operation.width, 1, ()),),
        classes=operation.classes,
        prefix_tokens=operation.prefix_tokens,
    )
