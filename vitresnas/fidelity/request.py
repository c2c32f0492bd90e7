"""What a fidelity report is asked to do, and the stand-alone trainings that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitresnas.errors import InputError
from vitresnas.space import Architecture, macs

_OVERHEAD = 5_000_000  # MACs' worth of what a training costs however small its network is


@dataclass(frozen=True)
class FidelityRequest:
    """None leaves a choice to the super-network, the cache or this machine.

    repeats: how many of the networks are trained again, with `seeds` seeds altogether.
    """

    supernet: Path | None = None
    space: str = "digits"
    data: str | None = None
    networks: int = 16
    epochs: int = 6
    repeats: int = 3
    seeds: int = 3
    seed: int = 0
    workers: int | None = None
    device: str = "auto"
    out: Path = Path("runs/fidelity")

    def __post_init__(self) -> None:
        if self.networks < 4:
            raise InputError(f"networks is {self.networks}: a rank correlation needs at least 4")
        if not 0 <= self.repeats <= self.networks:
            raise InputError(
                f"repeats is {self.repeats} of {self.networks} networks: use 0 to {self.networks}"
            )
        for name, least in (("epochs", 1), ("seeds", 1), ("workers", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}: use at least {least}")


@dataclass(frozen=True)
class Training:
    """One network, trained alone from one seed."""

    architecture: Architecture
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        return self.architecture.id, self.seed

    @property
    def work(self) -> float:
        """What an epoch costs, in MACs per image; only proportions count."""
        return float(macs(self.architecture) + _OVERHEAD)


def trainings(networks: Sequence[Architecture], request: FidelityRequest) -> list[Training]:
    """Every network once, and the repeated ones, evenly spread among them, with further seeds.

    The longest come first, so that several workers end at about the same time.
    """
    repeated = {
        round((n + 0.5) * len(networks) / request.repeats - 0.5) for n in range(request.repeats)
    }
    found = [
        Training(architecture, request.seed + seed)
        for index, architecture in enumerate(networks)
        for seed in range(request.seeds if index in repeated else 1)
    ]
    return sorted(found, key=lambda training: (-training.work, training.key))
