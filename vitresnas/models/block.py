"""The pre-norm transformer block: x + Attention(LN(x)), then x + MLP(LN(x)).

B images, N tokens, C width, H heads, D head dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitresnas.space.architecture import Block

LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention; H*D need not equal C. qkv rows are [q | k | v], head by head."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.projection = nn.Linear(heads * head_dim, width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.projection(attend(self.qkv(x_BNC), self.heads, self.head_dim))


class Mlp(nn.Module):
    """Two linears around an exact (erf) GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_BNC)))


class TransformerBlock(nn.Module):
    """Both halves, each with a residual that stochastic depth may drop image by image."""

    def __init__(self, width: int, head_dim: int, block: Block, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = Attention(width, block.heads, head_dim)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, block.hidden)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.mix(self.attend(x_BNC))

    def attend(self, x_BNC: Tensor) -> Tensor:
        """The first half."""
        return x_BNC + self._drop(self.attention(self.norm1(x_BNC)))

    def mix(self, x_BNC: Tensor) -> Tensor:
        """The second half."""
        return x_BNC + self._drop(self.mlp(self.norm2(x_BNC)))

    def _drop(self, branch_BNC: Tensor) -> Tensor:
        scale_B11 = drop_path_scale(branch_BNC, self.drop_path if self.training else 0.0)
        return branch_BNC if scale_B11 is None else branch_BNC * scale_B11


def attend(qkv_BNX: Tensor, heads: int, head_dim: int) -> Tensor:
    """Scaled dot-product attention on packed q, k, v: (B, N, 3*H*D) to (B, N, H*D)."""
    batch, tokens, _ = qkv_BNX.shape
    q_BHND, k_BHND, v_BHND = qkv_BNX.view(batch, tokens, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
    if qkv_BNX.is_cpu and qkv_BNX.dtype == torch.bfloat16 and qkv_BNX.requires_grad:
        # Backward in bf16, PyTorch calls oneDNN for every image and head: several times slower.
        with torch.autocast("cpu", enabled=False):
            out_BHND = F.scaled_dot_product_attention(
                q_BHND.float(), k_BHND.float(), v_BHND.float()
            ).to(qkv_BNX.dtype)
    else:
        out_BHND = F.scaled_dot_product_attention(q_BHND, k_BHND, v_BHND)
    return out_BHND.transpose(1, 2).reshape(batch, tokens, heads * head_dim)


def drop_path_scale(like_BNC: Tensor, rate: float) -> Tensor | None:
    """Stochastic depth: per image 0 with probability `rate`, else 1 / (1 - rate); None at rate 0.

    Shape (B, 1, 1). Source: Deep Networks with Stochastic Depth (Huang et al., 2016).
    """
    if rate == 0.0:
        return None
    keep_B11 = torch.rand(len(like_BNC), 1, 1, device=like_BNC.device) >= rate
    return keep_B11.to(like_BNC.dtype) / (1.0 - rate)
