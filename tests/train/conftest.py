"""A toy space and recipes that train in a second on handwritten digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train.nursery import Nursery
from vitresnas.data import Augmentation, Data, Mixing, load_data
from vitresnas.space import SearchSpace, StageChoices
from vitresnas.space.architecture import Embedding
from vitresnas.train import dry_run, path_speeds
from vitresnas.train.recipe import Recipe
from vitresnas.train.recipes import digits_retrain, digits_supernet
from vitresnas.train.run import run

TOY = SearchSpace(
    name="toy",
    image_size=8,
    patch_size=2,
    embedding=Embedding("convolutional", 4),
    stages=(
        StageChoices((16, 8), 8, 2, (2, 1), (32, 16), (2,)),
        StageChoices((24, 16), 8, 2, (3, 2), (48, 24), (2,)),
        StageChoices((32, 24), 8, 1, (4, 2), (64, 32)),
    ),
    classes=10,
)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Toy networks only wait for a second thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("logs"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def toy_space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "toy.json"
    TOY.save(path)
    return path


@pytest.fixture(scope="session")
def digits() -> Data:
    return load_data("digits", image_size=8)


@pytest.fixture(scope="session")
def toy_supernet(toy_space: Path) -> Recipe:
    """Everything random switched on, so that what resumes proves that all of it resumes."""
    return replace(
        digits_supernet(),
        name="toy-supernet",
        space=str(toy_space),
        epochs=4,
        batch_size=64,
        groups=4,
        widening_epochs=2,
        learning_rate=3e-3,
        warmup_epochs=1,
        drop_path=0.1,
        average=0.9,
        path="sliced",  # "auto" is decided where a run begins
        evaluate_every=2,
        augmentation=Augmentation(shift=0.1, scale=0.1, erase=0.25),
        mixing=Mixing(mixup=0.8, cutmix=1.0, probability=0.5),
    )


@pytest.fixture(scope="session")
def whole(toy_supernet: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy super-network, trained without interruption."""
    out = tmp_path_factory.mktemp("whole")
    run(toy_supernet, out, device="cpu")
    return out


@pytest.fixture
def few_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dry runs that are not there to be exact."""
    monkeypatch.setattr(dry_run, "TIMED_STEPS", 2)
    monkeypatch.setattr(path_speeds, "STEPS", 1)
    monkeypatch.setattr(path_speeds, "TURNS", 1)


@pytest.fixture
def toy_retrain(tmp_path: Path) -> Recipe:
    path = tmp_path / "architecture.json"
    TOY.smallest.save(path)
    return replace(
        digits_retrain(),
        name="toy-retrain",
        architecture=str(path),
        epochs=2,
        batch_size=64,
    )


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """An image folder of two classes that differ in brightness."""
    rng = np.random.default_rng(0)
    for name, brightness in (("cat", 0), ("dog", 128)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(brightness, brightness + 128, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"
