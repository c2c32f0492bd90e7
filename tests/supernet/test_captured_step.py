"""A step on fixed buffers trains as a plain step does; on a GPU one graph serves every draw."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import Tensor

from vitresnas.errors import BackendError, InputError
from vitresnas.space import SearchSpace
from vitresnas.supernet import Supernet, draw_architectures
from vitresnas.supernet.architecture_table import encode
from vitresnas.supernet.captured_step import CapturedStep, reasons_not_to_capture

GROUPS, STEPS = 2, 8


def loss(logits: Mapping[str, Tensor], targets: Tensor) -> Tensor:
    return F.cross_entropy(logits["class"], targets)


def make(space: SearchSpace, device: str = "cpu", path: str = "fused", **options):
    torch.manual_seed(0)
    supernet = Supernet(space, path=path).to(device).train()
    return supernet, torch.optim.AdamW(supernet.parameters(), lr=1e-2, **options)


def batches(space: SearchSpace, device: str = "cpu"):
    generator = torch.Generator().manual_seed(1)
    for number in range(STEPS):
        images = torch.randn(4 * GROUPS, 3, 16, 16, generator=generator)
        targets = torch.randint(space.classes, (4 * GROUPS,), generator=generator)
        yield (
            images.to(device),
            targets.to(device),
            draw_architectures(space, GROUPS, Random(number)),
        )


def train(space: SearchSpace, device: str, *, capture: bool) -> tuple[list[float], Supernet]:
    supernet, optimizer = make(space, device, capturable=device == "cuda")
    step = CapturedStep(supernet, optimizer, loss, capture=capture, clip_gradient=1.0)
    losses = []
    for number, batch in enumerate(batches(space, device)):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (number + 1)  # what a schedule does
        losses.append(float(step(*batch)))
    assert step.captured == capture
    return losses, supernet


def test_fixed_buffers_train_as_plain_steps_do(space: SearchSpace) -> None:
    losses, supernet = train(space, "cpu", capture=False)
    plain, optimizer = make(space)
    for number, (images, targets, architectures) in enumerate(batches(space)):
        optimizer.param_groups[0]["lr"] = 1e-2 / (number + 1)
        value = loss(plain.forward_heads(images, architectures, patches=False), targets)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        assert losses[number] == value.item()
    for ours, theirs in zip(supernet.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.gpu
def test_one_graph_serves_every_draw(space: SearchSpace) -> None:
    captured, replayed = train(space, "cuda", capture=True)
    eager, plain = train(space, "cuda", capture=False)
    assert captured == pytest.approx(eager, rel=1e-5)
    for ours, theirs in zip(replayed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_every_reason_against_a_capture_is_named(space: SearchSpace) -> None:
    supernet, optimizer = make(space, path="sliced")
    found = " / ".join(reasons_not_to_capture(supernet, optimizer))
    assert "is on the cpu: move it" in found
    assert 'use path="fused"' in found
    assert "create it capturable=True" in found
    with pytest.raises(BackendError, match="a CUDA graph cannot hold this training step: the su"):
        CapturedStep(supernet, optimizer, loss)


def test_another_batch_size_is_refused_in_one_sentence(space: SearchSpace) -> None:
    supernet, optimizer = make(space)
    step = CapturedStep(supernet, optimizer, loss, capture=False)
    images, targets, architectures = next(iter(batches(space)))
    step(images, targets, architectures)
    with pytest.raises(InputError, match=r"begun with images \(8, 3, 16, 16\)") as raised:
        step(images[:4], targets[:4], architectures)
    assert "\n" not in str(raised.value)


def test_one_compiled_graph_serves_every_draw_and_computes_the_same(space: SearchSpace) -> None:
    torch._dynamo.reset()
    supernet, _ = make(space)
    supernet.eval()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(supernet.forward_table, fullgraph=True, backend=counter)
    parameters = list(supernet.parameters())
    for images, _, architectures in batches(space):
        table = encode(architectures)
        results = []
        for forward in (supernet.forward_table, compiled):
            loss = torch.stack([y.square().sum() for y in forward(images, table).values()]).sum()
            results.append((loss.detach(), *torch.autograd.grad(loss, parameters)))
        for plain, ours in zip(*results, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1
