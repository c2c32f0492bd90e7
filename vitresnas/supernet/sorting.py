"""Channel sorting: put the most important heads and hidden units first (ViT-ResNAS, appendix).

The largest network computes the same function afterwards. Optimiser state and weight averages
follow their weights, so training goes on as if nothing had moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitresnas.models.block import Attention, Mlp, TransformerBlock

Permute = Callable[[Tensor], Tensor]


@torch.no_grad()
def sort_channels(
    network: nn.Module, optimizer: Optimizer | None = None, averages: Sequence[nn.Module] = ()
) -> None:
    """Sort every block of a full-width network (or super-network) in place.

    optimizer: its per-parameter state of the parameter's shape is permuted alike.
    averages: modules with the network's own parameter names (weight averages), permuted alike.
    """
    names: dict[Tensor, str] = {tensor: name for name, tensor in network.named_parameters()}
    twins = [dict(average.named_parameters()) for average in averages]
    for module in network.modules():
        if not isinstance(module, TransformerBlock):
            continue
        for parameter, permute in (*_sort_heads(module.attention), *_sort_hidden(module.mlp)):
            parameter.copy_(permute(parameter))
            for twin in twins:
                twin[names[parameter]].copy_(permute(twin[names[parameter]]))
            if optimizer is not None:
                for state in optimizer.state.get(parameter, {}).values():
                    if isinstance(state, Tensor) and state.shape == parameter.shape:
                        state.copy_(permute(state))


def _sort_heads(attention: Attention) -> Iterator[tuple[Tensor, Permute]]:
    heads, head_dim = attention.heads, attention.head_dim
    qkv, projection = attention.qkv, attention.projection
    importance_H = (
        qkv.weight.abs().sum(1).view(3, heads, head_dim).sum((0, 2))
        + qkv.bias.abs().view(3, heads, head_dim).sum((0, 2))
        + projection.weight.abs().sum(0).view(heads, head_dim).sum(1)
    )
    order_H = _descending(importance_H)

    def rows(tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (3, heads, head_dim))[:, order_H].flatten(0, 2)

    def columns(tensor: Tensor) -> Tensor:
        return tensor.unflatten(1, (heads, head_dim))[:, order_H].flatten(1, 2)

    yield qkv.weight, rows
    yield qkv.bias, rows
    yield projection.weight, columns


def _sort_hidden(mlp: Mlp) -> Iterator[tuple[Tensor, Permute]]:
    fc1, fc2 = mlp.fc1, mlp.fc2
    order_M = _descending(fc1.weight.abs().sum(1) + fc1.bias.abs() + fc2.weight.abs().sum(0))
    yield fc1.weight, lambda tensor: tensor[order_M]
    yield fc1.bias, lambda tensor: tensor[order_M]
    yield fc2.weight, lambda tensor: tensor[:, order_M]


def _descending(importance: Tensor) -> Tensor:
    # Stable, so that equal importances give the same order on every rank.
    return importance.argsort(descending=True, stable=True)
