"""ViT-Res: the multi-stage vision transformer of ViT-ResNAS (section 3.1), from an Architecture.

B images, N tokens, C width, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitresnas.errors import InputError
from vitresnas.models.block import LAYER_NORM_EPS, TransformerBlock
from vitresnas.models.embedding import PatchEmbedding
from vitresnas.models.features import Features
from vitresnas.models.reduction import ResidualSpatialReduction
from vitresnas.space.architecture import Architecture

INITIAL_STD = 0.02


def create_model(
    architecture: Architecture, *, drop_path: float = 0.0, patch_head: bool = False
) -> ViTRes:
    """Build a network with freshly drawn weights.

    drop_path: stochastic depth of the last block; it rises linearly from 0 over the blocks.
    patch_head: add the classifier on patch tokens that token-level labels train.
    """
    return ViTRes(architecture, drop_path=drop_path, patch_head=patch_head)


class ViTRes(nn.Module):
    """Stages of transformer blocks joined by residual spatial reductions."""

    stages: Sequence[ViTResStage]

    def __init__(
        self, architecture: Architecture, *, drop_path: float = 0.0, patch_head: bool = False
    ) -> None:
        super().__init__()
        if not 0.0 <= drop_path < 1.0:
            raise InputError(f"drop_path is {drop_path}: use at least 0 and less than 1")
        self.architecture = architecture
        width, classes = architecture.stages[-1].embed, architecture.classes
        self.embedding = PatchEmbedding(architecture)
        # A ModuleList forgets what its elements are; the annotations above and below remember.
        self.stages = nn.ModuleList(_build_stages(architecture, drop_path))  # type: ignore[assignment]
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(width, classes)
        two = architecture.prefix_tokens == 2
        self.distillation_head = nn.Linear(width, classes) if two else None
        self.patch_head = nn.Linear(width, classes) if patch_head else None
        self.apply(_initialise)

    def forward(self, images_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, K); with a distillation token a pair in training, their mean otherwise."""
        return combine_heads(self.forward_heads(images_BCHW, patches=False), self.training)

    def forward_heads(self, images_BCHW: Tensor, *, patches: bool = True) -> dict[str, Tensor]:
        """Each head's logits by name: class and distillation (B, K), patch (B, patches, K)."""
        return self.heads(self.features(images_BCHW).tokens, patches=patches)

    def features(self, images_BCHW: Tensor) -> Features:
        """What lies before the classifiers, stage by stage."""
        check_image(images_BCHW, self.architecture)
        x_BNC = self.embedding(images_BCHW)
        stages = []
        for stage in self.stages:
            x_BNC = stage(x_BNC)
            stages.append(x_BNC)
        return Features(tuple(stages), self.norm(x_BNC))

    def heads(self, tokens_BNC: Tensor, *, patches: bool = True) -> dict[str, Tensor]:
        """Classify normalised tokens."""
        logits = {"class": self.head(tokens_BNC[:, 0])}
        if self.distillation_head is not None:
            logits["distillation"] = self.distillation_head(tokens_BNC[:, 1])
        if patches and self.patch_head is not None:
            logits["patch"] = self.patch_head(tokens_BNC[:, self.architecture.prefix_tokens :])
        return logits

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm's optimiser factory leaves undecayed besides the 1-D ones."""
        return {"embedding.prefix_tokens"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which layer a parameter belongs to, in order, for timm's layer-wise learning rates."""
        block, reduction = r"^stages\.(\d+)\.blocks\.(\d+)", r"^stages\.(\d+)\.reduction"
        layers = r"^stages\.(\d+)" if coarse else [(block, None), (reduction, (-1,))]
        # timm lets 99999 join the layer before; classifiers, unnamed, are the last one.
        return {"stem": r"^embedding", "blocks": layers, "norm": [(r"^norm\.", (99999,))]}

    @torch.no_grad()
    def at_resolution(self, image_size: int) -> ViTRes:
        """A copy for another input side, its position embeddings interpolated (bicubic).

        The first step of fine-tuning at higher resolution (ViT-ResNAS, section 4.3).
        """
        new = copy.deepcopy(self)
        new.architecture = self.architecture.resized(image_size)
        prefix = self.architecture.prefix_tokens
        embedding, grids = new.embedding, new.architecture.grids
        embedding.position_embedding = _interpolate(embedding.position_embedding, prefix, grids[0])
        for stage, grid_in, grid_out in zip(new.stages[1:], grids[:-1], grids[1:], strict=True):
            reduction = stage.reduction
            assert reduction is not None  # every stage but the first has one
            reduction.grid = grid_in
            reduction.position_embedding = _interpolate(reduction.position_embedding, 0, grid_out)
        return new


class ViTResStage(nn.Module):
    """A reduction (except in the first stage), then blocks; skipped blocks are absent."""

    blocks: Sequence[TransformerBlock]

    def __init__(
        self, reduction: ResidualSpatialReduction | None, blocks: list[TransformerBlock]
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.checkpointing = False  # keep a block's input alone, and run it again going backward

    def forward(self, x_BNC: Tensor) -> Tensor:
        if self.reduction is not None:
            x_BNC = self.reduction(x_BNC)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x_BNC = checkpoint(block, x_BNC, use_reentrant=False)
            else:
                x_BNC = block(x_BNC)
        return x_BNC


def combine_heads(logits: dict[str, Tensor], training: bool) -> Tensor | tuple[Tensor, Tensor]:
    """What a classifier returns: one head, a pair in training, or the mean of the pair."""
    if "distillation" not in logits:
        return logits["class"]
    pair = (logits["class"], logits["distillation"])
    return pair if training else (pair[0] + pair[1]) / 2


def check_image(images_BCHW: Tensor, architecture: Architecture) -> None:
    """Raise InputError unless the images are what the architecture reads."""
    side = architecture.image_size
    expected = (architecture.channels, side, side)
    if images_BCHW.dim() != 4 or tuple(images_BCHW.shape[1:]) != expected:
        raise InputError(
            f"images have shape {tuple(images_BCHW.shape)}, this network reads "
            f"(batch, {architecture.channels}, {side}, {side}): resize the images, "
            "or build the network for their size with at_resolution()"
        )


def _build_stages(architecture: Architecture, drop_path: float) -> list[ViTResStage]:
    last = max(architecture.depth - 1, 1)
    rates = (drop_path * index / last for index in range(architecture.depth))
    stages = []
    for index, stage in enumerate(architecture.stages):
        reduction = None
        if index:
            reduction = ResidualSpatialReduction(
                architecture.stages[index - 1].embed,
                stage.embed,
                architecture.grids[index - 1],
                architecture.prefix_tokens,
            )
        blocks = [
            TransformerBlock(stage.embed, stage.head_dim, block, next(rates))
            for block in stage.kept
        ]
        stages.append(ViTResStage(reduction, blocks))
    return stages


def _initialise(module: nn.Module) -> None:
    # Norms and convolutions keep PyTorch's own initial values.
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, PatchEmbedding):
        nn.init.trunc_normal_(module.prefix_tokens, std=INITIAL_STD)
        nn.init.trunc_normal_(module.position_embedding, std=INITIAL_STD)
    elif isinstance(module, ResidualSpatialReduction):
        nn.init.trunc_normal_(module.position_embedding, std=INITIAL_STD)


def _interpolate(positions_1NC: nn.Parameter, prefix: int, grid: int) -> nn.Parameter:
    prefix_1PC, patches_1NC = positions_1NC[:, :prefix], positions_1NC[:, prefix:]
    old_grid = round(patches_1NC.shape[1] ** 0.5)
    image_1CSS = patches_1NC.transpose(1, 2).unflatten(2, (old_grid, old_grid))
    resized_1CSS = nn.functional.interpolate(
        image_1CSS, size=(grid, grid), mode="bicubic", align_corners=False, antialias=False
    )
    resized_1NC = torch.cat((prefix_1PC, resized_1CSS.flatten(2).transpose(1, 2)), dim=1)
    return nn.Parameter(resized_1NC, requires_grad=positions_1NC.requires_grad)
