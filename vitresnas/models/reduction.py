"""Residual spatial reduction (ViT-ResNAS, section 3.2): half the grid, at least as many channels.

B images, N tokens (P prefix, then S*S patches), C input and K output width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitresnas.models.block import LAYER_NORM_EPS


class ResidualSpatialReduction(nn.Module):
    """(B, P + S*S, C) to (B, P + S*S/4, K).

    Patches: LN, 3x3 stride-2 convolution, new positions; skip: 2x2 mean of the un-normalised
    input, zero-padded to K. Prefix: the same LN, a linear; skip: zero-padded to K.
    """

    def __init__(self, width_in: int, width_out: int, grid: int, prefix_tokens: int) -> None:
        super().__init__()
        self.grid, self.prefix = grid, prefix_tokens
        self.norm = nn.LayerNorm(width_in, eps=LAYER_NORM_EPS)
        self.convolution = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1)
        self.position_embedding = nn.Parameter(torch.zeros(1, (grid // 2) ** 2, width_out))
        self.prefix_projection = nn.Linear(width_in, width_out)

    def forward(self, x_BNC: Tensor) -> Tensor:
        y_BNC = self.norm(x_BNC)
        prefix_BPK = self.prefix_projection(y_BNC[:, : self.prefix])
        image_BKSS = self.convolution(as_image(y_BNC[:, self.prefix :], self.grid))
        patches_BNK = image_BKSS.flatten(2).transpose(1, 2) + self.position_embedding
        path_BNK = torch.cat((prefix_BPK, patches_BNK), dim=1)
        return path_BNK + reduction_skip(x_BNC, path_BNK.shape[-1], self.grid, self.prefix)


def as_image(patches_BNC: Tensor, grid: int) -> Tensor:
    """Row-major patches (B, S*S, C) as an image (B, C, S, S), without a copy."""
    return patches_BNC.transpose(1, 2).unflatten(2, (grid, grid))


def reduction_skip(x_BNC: Tensor, width_out: int, grid: int, prefix: int) -> Tensor:
    """The residual of a reduction: prefix as it is, patches pooled 2x2, both padded with zeros."""
    patches_BSSC = x_BNC[:, prefix:].unflatten(1, (grid // 2, 2, grid // 2, 2))
    pooled_BNC = patches_BSSC.mean(dim=(2, 4)).flatten(1, 2)
    skip_BNC = torch.cat((x_BNC[:, :prefix], pooled_BNC), dim=1)
    return F.pad(skip_BNC, (0, width_out - x_BNC.shape[-1]))
