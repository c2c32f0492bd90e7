"""Augmentation depends on (seed, epoch, image or step): not on workers, batches or history."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from vitresnas.data import Augmentation, Mixer, Mixing, TrainingLoader, load_data, normalise
from vitresnas.data.streams import seeded, stream

EVERYTHING = Augmentation(
    shift=0.1,
    scale=0.1,
    rotate=10,
    flip=0.5,
    erase=0.5,
    crop=(0.5, 1.0),
    policy="rand-m9-mstd0.5-inc1",
)
CHEAP = Augmentation(shift=0.1, scale=0.1, rotate=10)


def loader(data, augmentation, *, batch_size=8, workers=0, seed=0) -> TrainingLoader:
    return TrainingLoader(
        data.train,
        augmentation,
        batch_size,
        seed=seed,
        device=torch.device("cpu"),
        workers=workers,
    )


@pytest.fixture
def pets(image_folder):
    return load_data(image_folder, image_size=8)


def epoch(data, augmentation, number=0, **options):
    images, labels = zip(*loader(data, augmentation, **options).epoch(number), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_images(image_folder, pets, workers):
    alone = epoch(pets, EVERYTHING)
    lazy = load_data(image_folder, image_size=8, memory_budget=0)
    for data in (pets, lazy):
        shared = epoch(data, EVERYTHING, workers=workers)
        assert torch.equal(shared[1], alone[1])
    # Decoded images were brought to 8 pixels before the crop, so only these agree in pixels.
    assert torch.equal(epoch(pets, EVERYTHING, workers=workers)[0], alone[0])
    assert torch.equal(
        epoch(lazy, EVERYTHING, workers=workers)[0], epoch(lazy, EVERYTHING, workers=0)[0]
    )


@pytest.mark.parametrize("augmentation", [CHEAP, EVERYTHING], ids=["cheap", "everything"])
def test_an_epoch_is_the_same_whatever_came_before(pets, augmentation):
    fresh = loader(pets, augmentation)
    used = loader(pets, augmentation)
    for number in range(3):
        list(used.epoch(number))
    torch.manual_seed(1234)
    for (a, x), (b, y) in zip(fresh.epoch(3), used.epoch(3), strict=True):
        assert torch.equal(a, b) and torch.equal(x, y)


@pytest.mark.parametrize("augmentation", [CHEAP, EVERYTHING], ids=["cheap", "everything"])
def test_epochs_and_seeds_differ(pets, augmentation):
    first = epoch(pets, augmentation)[0]
    assert not torch.equal(first, epoch(pets, augmentation, 1)[0])
    assert not torch.equal(first, epoch(pets, augmentation, seed=1)[0])


def test_an_epoch_shows_every_image_once(pets):
    images, _ = epoch(pets, Augmentation())
    shown = sorted(image.numpy().tobytes() for image in images)
    stored = sorted(image.numpy().tobytes() for image in normalise(pets.train.pixels))
    assert shown == stored


def test_a_set_smaller_than_a_batch_fills_it(pets):
    images, labels = next(iter(loader(pets, CHEAP, batch_size=50).epoch(0)))
    assert len(images) == len(labels) == 50


def test_shifts_alone_move_whole_pixels(pets):
    augmentation = Augmentation(shift=0.25)
    images = loader(pets, augmentation)
    order = images._order(0)[0]
    moved = next(iter(images.epoch(0)))[0]
    values = normalise(pets.train.pixels)
    black = normalise(torch.zeros(1, 3, 1, 1))[0, :, 0, 0]
    for image, index in zip(moved, order, strict=True):
        known = torch.cat([values[index].flatten(1), black[:, None]], 1)
        for channel in range(3):
            gaps = (image[channel].flatten()[:, None] - known[channel][None]).abs().min(1).values
            assert gaps.max() < 1e-4


def test_flips_mirror_about_half_of_the_images(pets):
    images, _ = epoch(pets, Augmentation(flip=0.5))
    stored = normalise(pets.train.pixels)
    order = torch.cat(loader(pets, Augmentation(flip=0.5))._order(0))
    straight = [
        torch.allclose(image, stored[i], atol=1e-4) for image, i in zip(images, order, strict=True)
    ]
    mirrored = [
        torch.allclose(image, stored[i].flip(-1), atol=1e-4)
        for image, i in zip(images, order, strict=True)
    ]
    assert all(a or b for a, b in zip(straight, mirrored, strict=True))
    assert 4 < sum(mirrored) < 28


def test_the_policy_survives_every_magnitude(pets):
    """timm asks Pillow to keep 0 bits at times, which newer Pillows refuse."""
    images = epoch(pets, Augmentation(policy="rand-m10-mstd3-n6-inc1"))[0]
    assert images.isfinite().all()


def test_seeded_leaves_the_global_streams_alone():
    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draws()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with seeded(7, "image", 1):
        inside = draws()
    assert draws() == expected
    with seeded(7, "image", 1):
        assert draws() == inside


def test_streams_differ_by_place():
    seeds = {stream(seed, name, epoch) for seed in (0, 1) for name in "ab" for epoch in (0, 1)}
    assert len(seeds) == 8


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.8), Mixing(cutmix=1.0), Mixing()])
def test_mixed_targets_are_distributions_and_repeat(pets, mixing):
    images, labels = epoch(pets, Augmentation())
    mixer = Mixer(mixing, 2, seed=0)
    first, by_head = mixer(images.clone(), labels, 0, 3)
    again, _ = mixer(images.clone(), labels, 0, 3)
    targets = by_head["class"]
    torch.testing.assert_close(targets.sum(1), torch.ones(len(labels)))
    assert torch.equal(first, again)
    assert torch.equal(first, images) != mixing.active
    if not mixing.active:
        assert torch.equal(targets.argmax(1), labels)
        assert targets.max().item() == pytest.approx(1 - 0.1 + 0.1 / 2)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_of_an_odd_number_of_images_one_is_not_mixed(count):
    mixer = Mixer(Mixing(mixup=1.0), 3, seed=0)
    images = torch.arange(float(count)).view(count, 1, 1, 1).repeat(1, 3, 2, 2)
    mixed, targets = mixer(images.clone(), torch.arange(count) % 3, 0, 0)
    assert mixed.shape == images.shape and targets["class"].shape == (count, 3)
    alike = [torch.equal(a, b) for a, b in zip(mixed, images, strict=True)]
    assert alike == [False] * (count // 2 * 2) + [True] * (count % 2)
    torch.testing.assert_close(targets["class"].sum(1), torch.ones(count))
