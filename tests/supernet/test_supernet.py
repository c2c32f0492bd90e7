"""A group-wise step is exactly its sub-networks: same loss, same gradients, zeros elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from vitresnas.errors import InputError, MismatchError
from vitresnas.models import ViTRes, create_model
from vitresnas.space import Architecture, SearchSpace
from vitresnas.supernet import Supernet, draw_architectures, sliced
from vitresnas.supernet.slicing import sliced_state

PATHS = ("fused", "sliced", "masked")
IMAGES_PER_GROUP = 3
TOLERANCE = 1e-10


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("groups", [1, 4])
def test_a_step_equals_the_oracle_of_its_sub_networks(
    space: SearchSpace, path: str, groups: int
) -> None:
    supernet = make_supernet(space, path)
    architectures = draw_architectures(space, groups, Random(groups))
    images, targets = make_batch(space, groups)

    expected_loss = oracle_loss(supernet, images, targets, architectures)
    expected = gradients(supernet, expected_loss)
    loss = step_loss(supernet, images, targets, architectures)
    found = gradients(supernet, loss)

    assert abs(loss.item() - expected_loss.item()) < TOLERANCE
    reached = reached_by(supernet, architectures)
    for name, gradient in found.items():
        wanted = expected.get(name)
        assert gradient is not None, f"{name} has no gradient"
        outside = gradient[~reached[name]]
        assert torch.equal(outside, torch.zeros_like(outside)), f"{name}: not zero outside"
        if wanted is not None:
            torch.testing.assert_close(gradient, wanted, rtol=0, atol=TOLERANCE, msg=name)


@pytest.mark.parametrize("path", PATHS)
def test_a_group_equals_its_extracted_network_in_evaluation(space: SearchSpace, path: str) -> None:
    supernet = make_supernet(space, path)
    architectures = draw_architectures(space, 4, Random(5))
    images, _ = make_batch(space, 4)
    supernet.train()
    supernet(images, architectures)  # moves the running statistics of the trunk
    supernet.eval()
    with torch.no_grad():
        logits = supernet(images, architectures)
        alone = [
            supernet.extract(architecture)(chunk)
            for architecture, chunk in zip(architectures, images.chunk(4), strict=True)
        ]
    torch.testing.assert_close(logits, torch.cat(alone), rtol=0, atol=TOLERANCE)


def test_extraction_draws_no_random_numbers_and_shares_no_memory(space: SearchSpace) -> None:
    supernet = make_supernet(space, "sliced")
    before = torch.get_rng_state()
    model = supernet.extract(space.largest)
    assert torch.equal(torch.get_rng_state(), before)
    ours = {tensor.data_ptr() for tensor in supernet.state_dict().values()}
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() not in ours, name
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())


def test_all_paths_agree_under_drop_path(space: SearchSpace) -> None:
    architectures = draw_architectures(space, 2, Random(1))
    images, targets = make_batch(space, 2)
    results = []
    for path in PATHS:
        supernet = make_supernet(space, path, drop_path=0.5)
        torch.manual_seed(7)
        loss = step_loss(supernet, images, targets, architectures)
        results.append((loss, gradients(supernet, loss)))
    (first, first_gradients), *others = results
    for loss, found in others:
        torch.testing.assert_close(loss, first, rtol=0, atol=TOLERANCE)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, first_gradients[name], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("path", PATHS)
def test_drop_path_drops_whole_branches_of_single_images(space: SearchSpace, path: str) -> None:
    supernet = make_supernet(space, path, drop_path=0.5)
    supernet.network.embedding.trunk.eval()
    image = make_batch(space, 1)[0][:1]
    images = image.expand(64, -1, -1, -1)  # only the draws differ
    *others, last = (block for stage in supernet.network.stages for block in stage.blocks)
    for block in others:
        block.drop_path = 0.0
    assert last.drop_path == 0.5
    with torch.no_grad():
        logits = supernet.forward_heads(images, (space.largest, space.largest))["class"]
    outcomes = torch.unique(logits.mul(1e9).round(), dim=0, return_counts=True)[1]
    assert len(outcomes) == 4  # each of two branches whole or absent
    assert outcomes.min() >= 5


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_of_skipped_blocks_gives_every_parameter_a_gradient(
    space: SearchSpace, path: str
) -> None:
    supernet = make_supernet(space, path)
    images, targets = make_batch(space, 2)
    step_loss(supernet, images, targets, (space.smallest, space.smallest)).backward()
    assert all(parameter.grad is not None for parameter in supernet.parameters())


@pytest.mark.parametrize("path", ["fused", "sliced"])
def test_poison_in_weights_that_no_group_uses_does_not_leak(space: SearchSpace, path: str) -> None:
    # Not the masked path: it reads every weight, and 0 * NaN is NaN.
    supernet = make_supernet(space, path).eval()
    architectures = (space.smallest, space.smallest)
    images, _ = make_batch(space, 2)
    reached = reached_by(supernet, architectures)
    with torch.no_grad():
        clean = supernet(images, architectures)
        for name, parameter in supernet.named_parameters():
            parameter[~reached[name]] = float("nan")
        assert torch.equal(supernet(images, architectures), clean)


@pytest.mark.parametrize("path", PATHS)
def test_two_runs_agree_bit_for_bit(space: SearchSpace, path: str) -> None:
    supernet = make_supernet(space, path)
    architectures = draw_architectures(space, 4, Random(3))
    images, targets = make_batch(space, 4)
    first = gradients(supernet, step_loss(supernet, images, targets, architectures))
    second = gradients(supernet, step_loss(supernet, images, targets, architectures))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("path", PATHS)
def test_autocast_computes_in_half_precision_and_keeps_full_gradients(
    space: SearchSpace, path: str
) -> None:
    supernet = make_supernet(space, path).float()
    architectures = draw_architectures(space, 2, Random(3))
    images, targets = make_batch(space, 2)
    images = images.float()
    exact = gradients(supernet, step_loss(supernet, images, targets, architectures))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = step_loss(supernet, images, targets, architectures)
    found = gradients(supernet, loss)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    error = sum(float((found[name] - exact[name]).norm() ** 2) for name in exact)
    size = sum(float(exact[name].norm() ** 2) for name in exact)
    assert (error / size) ** 0.5 < 0.05


def test_autocast_leaves_prefix_tokens_in_full_precision_as_the_plain_network_does(
    space: SearchSpace,
) -> None:
    supernet = make_supernet(space, "sliced").float()
    embedding, images = supernet.network.embedding, make_batch(space, 1)[0].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trunk = supernet.forward_trunk(images)
        (found,) = sliced._embed(embedding, trunk, [space.largest.stages[0].embed])
        expected = embedding.tokens(trunk)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("path", PATHS)
def test_an_empty_batch_has_empty_logits(space: SearchSpace, path: str) -> None:
    supernet = make_supernet(space, path).eval()
    images, _ = make_batch(space, 2)
    assert supernet.forward_heads(images[:0], (space.largest,))["class"].shape == (0, space.classes)


@pytest.mark.parametrize("path", ["fused", "sliced"])
def test_second_derivatives_are_refused_rather_than_wrong(space: SearchSpace, path: str) -> None:
    supernet = make_supernet(space, path)
    images, targets = make_batch(space, 1)
    loss = step_loss(supernet, images, targets, (space.largest,))
    weight = supernet.network.stages[1].blocks[0].mlp.fc1.weight
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


@pytest.mark.gpu
@pytest.mark.parametrize("path", PATHS)
def test_a_step_on_the_gpu_equals_the_one_on_the_cpu(space: SearchSpace, path: str) -> None:
    architectures = draw_architectures(space, 4, Random(3))
    images, targets = make_batch(space, 4)
    results = []
    for device in ("cpu", "cuda"):
        supernet = make_supernet(space, path).to(device)
        loss = step_loss(supernet, images.to(device), targets.to(device), architectures)
        results.append({name: g.cpu() for name, g in gradients(supernet, loss).items()})
        model = supernet.extract(architectures[1])
        assert {tensor.device.type for tensor in model.state_dict().values()} == {device}
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=0, atol=1e-8, msg=name)


def test_uneven_groups_and_foreign_architectures_are_refused(space: SearchSpace) -> None:
    supernet = make_supernet(space, "sliced")
    images, _ = make_batch(space, 2)
    with pytest.raises(InputError, match="6 images cannot be divided into 4 equal groups"):
        supernet(images, (space.largest,) * 4)
    with pytest.raises(InputError, match="images have shape"):
        supernet(images[..., :8], (space.largest,) * 2)
    with pytest.raises(InputError, match="path is 'fast'"):
        Supernet(space, path="fast")
    foreign = space.with_data(classes=3).largest
    with pytest.raises(MismatchError, match="classes"):
        supernet(images, (foreign,))


def make_supernet(space: SearchSpace, path: str, drop_path: float = 0.0) -> Supernet:
    torch.manual_seed(0)
    supernet = Supernet(space, drop_path=drop_path, path=path, patch_head=True).double()
    with torch.no_grad():  # fresh biases and norms are zeros and ones, which would hide slips
        for parameter in supernet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return supernet.train()


def make_batch(space: SearchSpace, groups: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    count = groups * IMAGES_PER_GROUP
    images = torch.randn(count, 3, 16, 16, dtype=torch.float64, generator=generator)
    return images, torch.randint(space.classes, (count,), generator=generator)


def step_loss(
    supernet: Supernet, images: Tensor, targets: Tensor, architectures: Sequence[Architecture]
) -> Tensor:
    return heads_loss(supernet.forward_heads(images, architectures), targets)


def heads_loss(logits: dict[str, Tensor], targets: Tensor) -> Tensor:
    loss = F.cross_entropy(logits["class"], targets)
    if "distillation" in logits:
        loss = loss + 0.5 * F.cross_entropy(logits["distillation"], targets)
    patch = logits["patch"].flatten(0, 1)
    repeated = targets.repeat_interleave(len(patch) // len(targets))
    return loss + 0.3 * F.cross_entropy(patch, repeated)


def oracle_loss(
    supernet: Supernet, images: Tensor, targets: Tensor, architectures: Sequence[Architecture]
) -> Tensor:
    """The trunk once over the whole batch, then each group through its slices, one by one."""
    trunk = supernet.network.embedding.trunk(images)
    losses = []
    for architecture, features, target in zip(
        architectures,
        trunk.chunk(len(architectures)),
        targets.chunk(len(architectures)),
        strict=True,
    ):
        model = create_model(architecture, patch_head=True).double()
        model.embedding.trunk = nn.Identity()
        model.architecture = architecture
        state = {
            name: part
            for name, part in sliced_state(supernet.network, architecture)
            if ".trunk." not in name
        }
        losses.append(heads_loss(functional_call(FromTrunk(model), wrap(state), features), target))
    return torch.stack(losses).mean()


class FromTrunk(nn.Module):
    """A stand-alone network fed with trunk features."""

    def __init__(self, model: ViTRes) -> None:
        super().__init__()
        self.model: ViTRes = model

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        x = self.model.embedding.tokens(features)
        for stage in self.model.stages:
            x = stage(x)
        return self.model.heads(self.model.norm(x))


def wrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in state.items()}


def gradients(supernet: Supernet, loss: Tensor) -> dict[str, Tensor]:
    supernet.zero_grad()
    loss.backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in supernet.named_parameters()
        if parameter.grad is not None
    }


def reached_by(supernet: Supernet, architectures: Sequence[Architecture]) -> dict[str, Tensor]:
    """Which entries of each parameter any of the architectures uses."""
    supernet.zero_grad()
    parts = [
        part.sum()
        for architecture in architectures
        for _, part in sliced_state(supernet.network, architecture)
        if part.requires_grad
    ]
    torch.stack(parts).sum().backward()
    reached = {
        name: torch.zeros_like(parameter, dtype=torch.bool)
        if parameter.grad is None
        else parameter.grad != 0
        for name, parameter in supernet.named_parameters()
    }
    supernet.zero_grad()
    return reached
