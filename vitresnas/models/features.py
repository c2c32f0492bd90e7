"""What a network hands out besides its logits: the one door for methods that read features."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Token features of one forward pass.

    stages: after the blocks of each stage, (B, N, C) with the prefix tokens first.
    tokens: the last stage after the final LayerNorm, (B, N, C).
    pooled: its class token, (B, C).
    """

    stages: tuple[Tensor, ...]
    tokens: Tensor

    @property
    def pooled(self) -> Tensor:
        return self.tokens[:, 0]
