"""Channel sorting moves weights, optimiser state and averages together, nothing else changes."""

from __future__ import annotations

import copy

import torch
from torch import nn

from vitresnas.models.vit_res import ViTRes
from vitresnas.space import SearchSpace
from vitresnas.supernet import Supernet, sort_channels

# Key biases have no true gradient (softmax ignores them); AdamW amplifies their rounding noise.
TOLERANCE = 1e-9


def test_sorting_keeps_the_function_of_the_largest_network(space: SearchSpace) -> None:
    network = make_network(space).eval()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        before, first_weight = network(images), network.stages[0].blocks[0].mlp.fc1.weight.clone()
        sort_channels(network)
        after = network(images)
    assert not torch.equal(network.stages[0].blocks[0].mlp.fc1.weight, first_weight)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


def test_the_most_important_heads_and_units_come_first(space: SearchSpace) -> None:
    network = make_network(space)
    sort_channels(network)
    for block in network.stages[1].blocks:
        mlp = block.mlp
        units = mlp.fc1.weight.abs().sum(1) + mlp.fc1.bias.abs() + mlp.fc2.weight.abs().sum(0)
        assert torch.all(units[:-1] >= units[1:])
        projection = block.attention.projection.weight.unflatten(1, (block.attention.heads, -1))
        qkv = block.attention.qkv
        per_head = (3, block.attention.heads, block.attention.head_dim)
        heads = (
            projection.abs().sum((0, 2))
            + qkv.weight.abs().sum(1).view(per_head).sum((0, 2))
            + qkv.bias.abs().view(per_head).sum((0, 2))
        )
        assert torch.all(heads[:-1] >= heads[1:])


def test_adamw_goes_on_as_if_nothing_had_moved(space: SearchSpace) -> None:
    """Four steps with two sorts equal four steps without, up to the permutation."""
    plain, sorted_ = (train(make_network(space), sorts=sorts) for sorts in ((), (1, 3)))
    # Sorting both at the end brings them into one order, moments included.
    sort_channels(plain[0], plain[1])
    sort_channels(sorted_[0], sorted_[1])
    for a, b in zip(plain[0].parameters(), sorted_[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE)
        for name in ("exp_avg", "exp_avg_sq"):
            state_a, state_b = plain[1].state[a][name], sorted_[1].state[b][name]
            torch.testing.assert_close(state_a, state_b, rtol=0, atol=TOLERANCE)


def test_leaving_the_optimiser_behind_would_show(space: SearchSpace) -> None:
    plain = train(make_network(space), sorts=())
    careless = train(make_network(space), sorts=(1, 3), carry_state=False)
    sort_channels(plain[0])
    sort_channels(careless[0])
    largest = max(
        float((a - b).detach().abs().max())
        for a, b in zip(plain[0].parameters(), careless[0].parameters(), strict=True)
    )
    assert largest > 1e-3


def test_weight_averages_follow(space: SearchSpace) -> None:
    network = make_network(space)
    average = copy.deepcopy(network).eval()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    sort_channels(network, averages=[average])
    for a, b in zip(network.parameters(), average.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(average(images), network.eval()(images))


def make_network(space: SearchSpace) -> ViTRes:
    torch.manual_seed(0)
    network = Supernet(space).network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def train(
    network: ViTRes, *, sorts: tuple[int, ...], carry_state: bool = True
) -> tuple[ViTRes, torch.optim.Optimizer]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.05)
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        if step in sorts:
            sort_channels(network, optimizer if carry_state else None)
        images = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=generator)
        logits = network.forward_heads(images)
        losses = [nn.functional.cross_entropy(x, torch.arange(4)) for x in logits.values()]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    return network, optimizer
