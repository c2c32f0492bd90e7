"""The parts of an optimised network. Each takes over a part of the original and its weights.

B images, N tokens (P prefix, then S*S patches), C and K widths, M mid channels, H heads,
D head dim, X = H*D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from vitresnas.models.block import TransformerBlock, attend
from vitresnas.models.embedding import ConvolutionalTrunk, PatchEmbedding
from vitresnas.models.reduction import ResidualSpatialReduction, as_image


class InferenceTrunk(nn.Module):
    """The convolutional trunk with BatchNorm folded into weights that lie channels last."""

    def __init__(self, trunk: ConvolutionalTrunk) -> None:
        super().__init__()
        self.conv1 = _folded(trunk.conv1)
        self.conv2 = _folded(trunk.conv2)
        self.conv3 = _folded(trunk.conv3)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        first_BMHW = self.conv1(images_BCHW).relu_()
        second_BMHW = self.conv2(first_BMHW).relu_()
        return self.conv3(second_BMHW).relu_().add_(first_BMHW)


class InferenceEmbedding(nn.Module):
    """Pixels to tokens. Channels last, patches leave the projection as rows of tokens already."""

    def __init__(self, embedding: PatchEmbedding) -> None:
        super().__init__()
        self.embedding = embedding
        if isinstance(embedding.trunk, ConvolutionalTrunk):
            embedding.trunk = InferenceTrunk(embedding.trunk)
        _channels_last(embedding.projection)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.embedding(images_BCHW)


class InferenceBlock(nn.Module):
    """A transformer block that overwrites its input, which nobody else reads."""

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.norm1, self.attention = block.norm1, block.attention
        self.norm2, self.mlp = block.norm2, block.mlp

    def forward(self, x_BNC: Tensor) -> Tensor:
        qkv_BNX = self.attention.qkv(self.norm1(x_BNC))
        mixed_BNX = attend(qkv_BNX, self.attention.heads, self.attention.head_dim)
        return self._end(x_BNC, mixed_BNX)

    def _end(self, x_BNC: Tensor, mixed_BNX: Tensor) -> Tensor:
        """All that follows attention, which is row by row."""
        _add_linear(x_BNC, mixed_BNX, self.attention.projection)
        hidden_BNX = torch.ops.aten.gelu_(self.mlp.fc1(self.norm2(x_BNC)))
        return _add_linear(x_BNC, hidden_BNX, self.mlp.fc2)


class PrefixBlock(InferenceBlock):
    """The same for the rows of the prefix tokens alone: their queries, everybody's keys."""

    def __init__(self, block: TransformerBlock, prefix_tokens: int) -> None:
        super().__init__(block)
        self.prefix = prefix_tokens

    def forward(self, x_BNC: Tensor) -> Tensor:
        attention, y_BNC = self.attention, self.norm1(x_BNC)
        inner = attention.heads * attention.head_dim
        weight, bias = attention.qkv.weight, attention.qkv.bias
        q_BPX = F.linear(y_BNC[:, : self.prefix], weight[:inner], bias[:inner])
        kv_BNX = F.linear(y_BNC, weight[inner:], bias[inner:])
        shape = (attention.heads, attention.head_dim)
        k_BNHD, v_BNHD = kv_BNX.unflatten(-1, (2, *shape)).unbind(2)
        mixed_BHPD = F.scaled_dot_product_attention(
            q_BPX.unflatten(-1, shape).transpose(1, 2),
            k_BNHD.transpose(1, 2),
            v_BNHD.transpose(1, 2),
        )
        mixed_BPX = mixed_BHPD.transpose(1, 2).flatten(2)
        return self._end(x_BNC[:, : self.prefix].contiguous(), mixed_BPX)


class InferenceReduction(nn.Module):
    """Residual spatial reduction whose skip is added in place, where it is not padding."""

    def __init__(self, reduction: ResidualSpatialReduction) -> None:
        super().__init__()
        self.reduction = reduction
        _channels_last(reduction.convolution)

    def forward(self, x_BNC: Tensor) -> Tensor:
        part, width = self.reduction, x_BNC.shape[-1]
        x_BPC, x_BCSS = _split(x_BNC, part)
        y_BPC, y_BCSS = _split(part.norm(x_BNC), part)
        prefix_BPK = part.prefix_projection(y_BPC)
        patches_BNK = _as_rows(part.convolution(y_BCSS))
        out_BNK = torch.cat((prefix_BPK, patches_BNK), dim=1)
        out_BNK[:, : part.prefix, :width] += x_BPC
        out_BNK[:, part.prefix :] += part.position_embedding
        out_BNK[:, part.prefix :, :width] += _as_rows(F.avg_pool2d(x_BCSS, 2))
        return out_BNK


class PrefixEmbedding(nn.Module):
    """Images to what the prefix tokens are before any block: the same for every image."""

    def __init__(self, embedding: PatchEmbedding, prefix_tokens: int) -> None:
        super().__init__()
        positions_1PC = embedding.position_embedding[:, :prefix_tokens]
        self.tokens_1PC = nn.Parameter(embedding.prefix_tokens + positions_1PC)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.tokens_1PC.expand(len(images_BCHW), -1, -1)


class PrefixReduction(nn.Module):
    """The prefix tokens' way through a reduction, where nothing reads the patches any more."""

    def __init__(self, reduction: ResidualSpatialReduction) -> None:
        super().__init__()
        self.norm, self.projection = reduction.norm, reduction.prefix_projection

    def forward(self, x_BPC: Tensor) -> Tensor:
        out_BPK: Tensor = self.projection(self.norm(x_BPC))
        out_BPK[..., : x_BPC.shape[-1]] += x_BPC
        return out_BPK


def _folded(conv_norm: nn.Sequential) -> nn.Conv2d:
    """Convolution and BatchNorm as one convolution; folded in float64, kept in their own type."""
    convolution, norm = conv_norm
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    dtype = convolution.weight.dtype
    return _channels_last(fuse_conv_bn_eval(convolution.double(), norm.double()).to(dtype))


def _channels_last(convolution: nn.Conv2d) -> nn.Conv2d:
    """With its weight laid out like this a convolution also writes its output so."""
    return convolution.to(memory_format=torch.channels_last)


def _add_linear(x_BNC: Tensor, y_BNX: Tensor, linear: nn.Linear) -> Tensor:
    """x += linear(y): the matrix product accumulates onto the residual stream."""
    x_BNC += linear.bias
    x_BNC.flatten(0, 1).addmm_(y_BNX.flatten(0, 1), linear.weight.t())
    return x_BNC


def _split(x_BNC: Tensor, part: ResidualSpatialReduction) -> tuple[Tensor, Tensor]:
    """The prefix tokens (B, P, C), and the patches as an image (B, C, S, S)."""
    return x_BNC[:, : part.prefix], as_image(x_BNC[:, part.prefix :], part.grid)


def _as_rows(image_BKSS: Tensor) -> Tensor:
    return image_BKSS.flatten(2).transpose(1, 2)
