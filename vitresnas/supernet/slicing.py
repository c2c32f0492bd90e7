"""Which part of the largest network's weights a sub-network uses: the first of everything.

Width c is the first c channels, h heads the first h in q, k and v alike, m hidden units the first
m (ViT-ResNAS, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vitresnas.models.block import Attention, TransformerBlock
from vitresnas.models.reduction import ResidualSpatialReduction
from vitresnas.models.vit_res import ViTRes, create_model
from vitresnas.space.architecture import Architecture, Block

Named = Iterator[tuple[str, Tensor]]


def extract(network: ViTRes, architecture: Architecture) -> ViTRes:
    """A stand-alone network with copies of the weights it inherits; on the same device."""
    with torch.device("meta"):  # no random draws for weights that are at hand
        model = create_model(architecture, patch_head=network.patch_head is not None)
    inherited = {
        name: view.detach().clone(memory_format=torch.contiguous_format)
        for name, view in sliced_state(network, architecture)
    }
    model.load_state_dict(inherited, assign=True)
    return model.train(network.training)


def sliced_state(network: ViTRes, architecture: Architecture) -> Named:
    """(name in the stand-alone network, its part of `network`), parameters and buffers.

    Parts are views except qkv with fewer heads, whose rows do not lie together.
    """
    width = architecture.stages[0].embed
    embedding = network.embedding
    for name, tensor in embedding.trunk.state_dict(keep_vars=True).items():
        yield f"embedding.trunk.{name}", tensor
    yield "embedding.projection.weight", embedding.projection.weight[:width]
    yield "embedding.projection.bias", _bias(embedding.projection)[:width]
    yield "embedding.prefix_tokens", embedding.prefix_tokens[..., :width]
    yield "embedding.position_embedding", embedding.position_embedding[..., :width]
    for index, (stage, module) in enumerate(zip(architecture.stages, network.stages, strict=True)):
        if module.reduction is not None:
            before = architecture.stages[index - 1].embed
            yield from _prefixed(
                f"stages.{index}.reduction", _reduction(module.reduction, before, stage.embed)
            )
        kept = [
            (block, source)
            for block, source in zip(stage.blocks, module.blocks, strict=True)
            if block is not None
        ]
        for position, (block, source) in enumerate(kept):
            yield from _prefixed(
                f"stages.{index}.blocks.{position}", _block(source, stage.embed, block)
            )
    width = architecture.stages[-1].embed
    yield from _prefixed("norm", _norm(network.norm, width))
    for name in ("head", "distillation_head", "patch_head"):
        head = getattr(network, name)
        if head is not None:
            yield f"{name}.weight", head.weight[:, :width]
            yield f"{name}.bias", head.bias


def head_rows(tensor: Tensor, attention: Attention, heads: int) -> Tensor:
    """The q, k and v rows of the first `heads` heads of qkv's weight or bias."""
    packed = tensor.unflatten(0, (3, attention.heads * attention.head_dim))
    return packed[:, : heads * attention.head_dim].flatten(0, 1)


def _block(source: TransformerBlock, width: int, block: Block) -> Named:
    attention, mlp = source.attention, source.mlp
    inner = block.heads * attention.head_dim
    yield from _prefixed("norm1", _norm(source.norm1, width))
    yield "attention.qkv.weight", head_rows(attention.qkv.weight, attention, block.heads)[:, :width]
    yield "attention.qkv.bias", head_rows(attention.qkv.bias, attention, block.heads)
    yield "attention.projection.weight", attention.projection.weight[:width, :inner]
    yield "attention.projection.bias", attention.projection.bias[:width]
    yield from _prefixed("norm2", _norm(source.norm2, width))
    yield "mlp.fc1.weight", mlp.fc1.weight[: block.hidden, :width]
    yield "mlp.fc1.bias", mlp.fc1.bias[: block.hidden]
    yield "mlp.fc2.weight", mlp.fc2.weight[:width, : block.hidden]
    yield "mlp.fc2.bias", mlp.fc2.bias[:width]


def _reduction(source: ResidualSpatialReduction, width_in: int, width_out: int) -> Named:
    yield from _prefixed("norm", _norm(source.norm, width_in))
    yield "convolution.weight", source.convolution.weight[:width_out, :width_in]
    yield "convolution.bias", _bias(source.convolution)[:width_out]
    yield "position_embedding", source.position_embedding[..., :width_out]
    yield "prefix_projection.weight", source.prefix_projection.weight[:width_out, :width_in]
    yield "prefix_projection.bias", source.prefix_projection.bias[:width_out]


def _norm(source: nn.LayerNorm, width: int) -> Named:
    yield "weight", source.weight[:width]
    yield "bias", source.bias[:width]


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None  # ours are built with one
    return convolution.bias


def _prefixed(prefix: str, named: Named) -> Named:
    return ((f"{prefix}.{name}", tensor) for name, tensor in named)
