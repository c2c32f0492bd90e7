"""A finished network made ready to run: the same logits, less work around the arithmetic.

B images, N tokens (P prefix tokens first), C width, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vitresnas.errors import InputError
from vitresnas.models.block import TransformerBlock
from vitresnas.models.embedding import PatchEmbedding
from vitresnas.models.inference_parts import (
    InferenceBlock,
    InferenceEmbedding,
    InferenceReduction,
    PrefixBlock,
    PrefixEmbedding,
    PrefixReduction,
)
from vitresnas.models.reduction import ResidualSpatialReduction
from vitresnas.models.vit_res import ViTRes, check_image, combine_heads


def optimise_for_inference(model: ViTRes, *, dtype: torch.dtype | None = None) -> InferenceViTRes:
    """A copy of `model`, which must be in evaluation mode, that computes its logits faster.

    dtype: what to compute in, after everything was folded; the model's own by default.

    BatchNorm is folded into its convolutions, whose weights lie channels last; residuals are
    accumulated by the linear that ends their branch; and since the classifiers read the prefix
    tokens alone, the last block and all that follows it compute no other rows. LayerNorm keeps its
    weight and bias: folding them into the next linear makes torch's kernel no faster (in fp32 on a
    CPU it is slower without them) and costs a rounding.
    """
    if model.training:
        raise InputError(
            "the network is in training mode, where BatchNorm depends on the batch: "
            "call model.eval() before optimise_for_inference(model)"
        )
    return InferenceViTRes(copy.deepcopy(model)).to(dtype=dtype)


class InferenceViTRes(nn.Module):
    """Images (B, channels, side, side) to logits (B, K): classification alone, no features.

    It takes over the modules of the network it is made from; `optimise_for_inference` hands it a
    copy. Not trainable: activations are overwritten in place.
    """

    def __init__(self, model: ViTRes) -> None:
        super().__init__()
        self.architecture = model.architecture
        self.steps = nn.ModuleList(_steps(model))
        self.norm, self.head = model.norm, model.head
        self.distillation_head = model.distillation_head
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor) -> Tensor:
        check_image(images_BCHW, self.architecture)
        x = images_BCHW
        for step in self.steps:
            x = step(x)
        tokens_BPC = self.norm(x)
        logits = {"class": self.head(tokens_BPC[:, 0])}
        if self.distillation_head is not None:
            logits["distillation"] = self.distillation_head(tokens_BPC[:, 1])
        mean_BK = combine_heads(logits, training=False)
        assert isinstance(mean_BK, Tensor)  # a pair is for training
        return mean_BK

    def train(self, mode: bool = True) -> InferenceViTRes:
        if mode:
            raise InputError(
                "a network optimised for inference cannot be trained, because its BatchNorm is "
                "folded away: train the network that it was made from"
            )
        return super().train(mode)


def _steps(model: ViTRes) -> Iterator[nn.Module]:
    """The parts of a network in order; from its last block on they yield the prefix rows alone."""
    parts: list[nn.Module] = [model.embedding]
    for stage in model.stages:
        parts += [] if stage.reduction is None else [stage.reduction]
        parts += stage.blocks
    prefix = model.architecture.prefix_tokens
    blocks = [place for place, part in enumerate(parts) if isinstance(part, TransformerBlock)]
    last = max(blocks, default=-1)
    for place, part in enumerate(parts):
        # Without any block the prefix tokens never meet the image.
        match part:
            case PatchEmbedding():
                yield InferenceEmbedding(part) if place < last else PrefixEmbedding(part, prefix)
            case TransformerBlock():
                yield InferenceBlock(part) if place < last else PrefixBlock(part, prefix)
            case ResidualSpatialReduction():
                yield InferenceReduction(part) if place < last else PrefixReduction(part)
