"""Under DistributedDataParallel the fused path averages as one process with all images does."""

from __future__ import annotations

import socket
from pathlib import Path
from random import Random

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.multiprocessing.spawn import spawn

from tests.supernet.conftest import toy_space
from vitresnas.supernet import Supernet, draw_architectures

RANKS, IMAGES = 2, 4


def make() -> Supernet:
    torch.manual_seed(0)
    supernet = Supernet(toy_space(), path="fused").double().train()
    supernet.network.embedding.trunk.eval()  # batch statistics are per rank
    return supernet


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(RANKS * IMAGES, 3, 16, 16, dtype=torch.float64, generator=generator)
    return images, torch.randint(6, (RANKS * IMAGES,), generator=generator)


def run_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    model = torch.nn.parallel.DistributedDataParallel(make())
    images, targets = (t.chunk(RANKS)[rank] for t in batch())
    draws = draw_architectures(toy_space(), RANKS, Random(4))  # a sub-network per rank
    for _ in range(2):  # DDP complains in the second step if a gradient was missing in the first
        model.zero_grad()
        F.cross_entropy(model(images, (draws[rank],)), targets).backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], Path(folder) / "gradients.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_equal_one_process_with_both_groups(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(run_rank, (port, str(tmp_path)), nprocs=RANKS)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    supernet = make()
    images, targets = batch()
    draws = draw_architectures(toy_space(), RANKS, Random(4))
    F.cross_entropy(supernet(images, draws), targets).backward()
    for ours, parameter in zip(found, supernet.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=0, atol=1e-12)
