"""Pixels to tokens (ViT-ResNAS, section 3.1 and appendix): trunk, projection, prefix, positions.

B images, M mid channels, C width, P patch size, S patch grid, N tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitresnas.space.architecture import Architecture


class ConvolutionalTrunk(nn.Module):
    """Three 3x3 convolutions; the first halves the image, the third adds to the first."""

    def __init__(self, channels: int, mid_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm(channels, mid_channels, stride=2)
        self.conv2 = _conv_norm(mid_channels, mid_channels, stride=1)
        self.conv3 = _conv_norm(mid_channels, mid_channels, stride=1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        first = torch.relu(self.conv1(images_BCHW))
        return first + torch.relu(self.conv3(torch.relu(self.conv2(first))))


class PatchEmbedding(nn.Module):
    """Images (B, channels, side, side) to tokens (B, prefix + S*S, C).

    The trunk has one width in every sub-network of a space; what follows it does not.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width, patch = architecture.stages[0].embed, architecture.patch_size
        mid_channels = architecture.embedding.mid_channels
        self.trunk: nn.Module
        if architecture.embedding.kind == "convolutional":
            self.trunk = ConvolutionalTrunk(architecture.channels, mid_channels)
            self.projection = nn.Conv2d(mid_channels, width, patch // 2, stride=patch // 2)
        else:
            self.trunk = nn.Identity()
            self.projection = nn.Conv2d(architecture.channels, width, patch, stride=patch)
        self.prefix_tokens = nn.Parameter(torch.zeros(1, architecture.prefix_tokens, width))
        self.position_embedding = nn.Parameter(torch.zeros(1, architecture.tokens[0], width))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.tokens(self.trunk(images_BCHW))

    def tokens(self, trunk_BMHW: Tensor) -> Tensor:
        """The part after the trunk."""
        patches_BNC = self.projection(trunk_BMHW).flatten(2).transpose(1, 2)
        # Not len(), which tracing and torch.export take for a constant.
        prefix_BNC = self.prefix_tokens.expand(patches_BNC.shape[0], -1, -1)
        return torch.cat((prefix_BNC, patches_BNC), dim=1) + self.position_embedding


def _conv_norm(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out, eps=1e-5))
