"""How fast this device trains and scores networks of a space: a few steps on made-up images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch

from vitresnas.space import SearchSpace, macs
from vitresnas.supernet import Supernet, draw_architectures

STEPS = 4
PATIENCE_SECONDS = 4.0  # a slow device is judged by fewer steps


@dataclass(frozen=True)
class DevicePace:
    """MACs per second (forward passes counted) while training and while scoring."""

    training: float
    scoring: float

    def training_seconds(self, average_macs: float, images: float) -> float:
        return average_macs * images / self.training

    def scoring_seconds(self, average_macs: float, images: float) -> float:
        return average_macs * images / self.scoring


def measure_pace(space: SearchSpace, batch_size: int, groups: int, device: str) -> DevicePace:
    """Train and run a super-network of `space` for a few steps, with PyTorch's present threads."""
    model = Supernet(space).to(device)
    rng, side = Random(0), space.image_size
    images_BCHW = torch.randn(batch_size, space.channels, side, side, device=device)
    draws = [draw_architectures(space, groups, rng) for _ in range(STEPS + 1)]

    def train(step: int) -> None:
        heads = model.forward_heads(images_BCHW, draws[step], patches=False)
        torch.stack([head.float().square().mean() for head in heads.values()]).sum().backward()
        model.zero_grad(set_to_none=True)

    def run(step: int) -> None:
        with torch.inference_mode():
            model(images_BCHW, draws[step][:1])

    work = [[macs(a) * batch_size / len(draw) for a in draw] for draw in draws]
    training = _rate(train, [sum(draw) for draw in work], device)
    model.eval()
    scoring = _rate(run, [draw[0] * groups for draw in work], device)
    return DevicePace(training, scoring)


def _rate(step: Callable[[int], None], work: list[float], device: str) -> float:
    """Work per second of the fastest step: the one that other processes disturbed least."""
    began, best = time.perf_counter(), 0.0
    for number in range(len(work)):  # the first one only warms up
        begin = time.perf_counter()
        step(number)
        if device != "cpu":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if number:
            best = max(best, work[number] / (now - begin))
            if now - began > PATIENCE_SECONDS:
                break
    return best
