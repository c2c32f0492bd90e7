"""Stochastic depth for a whole step: drawn once for all blocks, so that every way to compute the
step sees the same draws."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vitresnas.models.block import drop_path_scale
from vitresnas.models.vit_res import ViTRes


@dataclass(frozen=True)
class DropPathScales:
    """Per block (stage, position): the factors (B, 1, 1) of its two branches, or nothing."""

    scales: dict[tuple[int, int], tuple[Tensor, Tensor]]
    groups: int

    @classmethod
    def draw(cls, network: ViTRes, like_BX: Tensor, groups: int) -> DropPathScales:
        """Draw for every block of the largest network; nothing in evaluation mode or at rate 0.

        like_BX: any tensor of the batch, for its length, device and type.
        """
        scales = {}
        for stage_index, stage in enumerate(network.stages):
            for position, block in enumerate(stage.blocks):
                rate = block.drop_path if network.training else 0.0
                attention_B11, mlp_B11 = (drop_path_scale(like_BX, rate) for _ in range(2))
                if attention_B11 is not None and mlp_B11 is not None:
                    scales[stage_index, position] = (attention_B11, mlp_B11)
        return cls(scales, groups)

    def of(
        self, stage: int, position: int
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | tuple[None, None]:
        """Factors of both branches of a block, split by group."""
        pair = self.scales.get((stage, position))
        if pair is None:
            return None, None
        return pair[0].chunk(self.groups), pair[1].chunk(self.groups)

    def whole(self, stage: int, position: int) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Factors of both branches of a block for the whole batch."""
        return self.scales.get((stage, position), (None, None))
