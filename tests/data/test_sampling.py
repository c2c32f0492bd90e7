"""What an epoch shows: shuffled, or every class equally often; the same whenever it is asked."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from PIL import Image

from vitresnas.data import Augmentation, TrainingLoader, load_data, normalise
from vitresnas.data.crop_and_colour import crop_maps, jitter
from vitresnas.data.sampling import BALANCED, SHUFFLED, showings
from vitresnas.data.streams import generator
from vitresnas.errors import InputError

UNEQUAL = torch.tensor([0] * 50 + [1] * 7 + [3] * 1)


def test_balanced_shows_every_class_and_every_image_of_a_class_equally_often():
    shown = showings(BALANCED, UNEQUAL, 64, generator(0, "order", 0))
    assert len(shown.unique()) == 64
    indices = shown % len(UNEQUAL)
    counts = torch.bincount(UNEQUAL[indices])
    assert sorted(counts.tolist()) == [0, 21, 21, 22]
    times = torch.bincount(indices[UNEQUAL[indices] == 1])[50:57]
    assert times.tolist() == [3] * 7 or sorted(times.tolist()) == [3] * 6 + [4]


@pytest.mark.parametrize("sampling", [SHUFFLED, BALANCED])
def test_an_epoch_repeats_itself_and_others_differ(sampling):
    first, again, other = (
        showings(sampling, UNEQUAL, 40, generator(0, "order", epoch)) for epoch in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_unknown_sampling_is_refused():
    train = load_data("digits", image_size=8).train
    with pytest.raises(InputError, match="sampling is 'fair': use shuffled or balanced"):
        TrainingLoader(
            train, Augmentation(), 8, seed=0, device=torch.device("cpu"), sampling="fair"
        )


@pytest.fixture
def rare(image_folder):
    for path in sorted((image_folder / "cat").iterdir())[5:]:
        path.unlink()
    return image_folder


@pytest.mark.parametrize("budget", [0, 2**30])
def test_a_rare_image_is_shown_again_and_augmented_anew(rare, budget):
    data = load_data(rare, image_size=8, memory_budget=budget)
    loader = TrainingLoader(
        data.train,
        Augmentation(shift=0.2, scale=0.2, crop=(0.5, 1.0)),
        10,
        seed=0,
        device=torch.device("cpu"),
        sampling=BALANCED,
    )
    images, labels = (torch.cat(parts) for parts in zip(*loader.epoch(0), strict=True))
    again, _ = (torch.cat(parts) for parts in zip(*loader.epoch(0, 0), strict=True))
    assert torch.equal(images, again)
    cats = images[labels == 0]
    assert len(cats) * 2 == len(images) > 3 * int((data.train.labels == 0).sum())
    assert len(cats.flatten(1).unique(dim=0)) == len(cats)
    later, _ = next(iter(loader.epoch(0, 1)))
    assert torch.equal(later, images[10:20])


def test_crop_on_a_batch_is_the_crop_of_each_image():
    ramp = torch.arange(64.0).repeat(1, 3, 64, 1)
    draws = torch.tensor([[0.0, 0.5, 1.0, 0.5]])  # area low, square, far right, middle
    grid = torch.nn.functional.affine_grid(
        crop_maps(torch.eye(2, 3)[None], draws, (0.25, 1.0)), [1, 3, 64, 64], align_corners=False
    )
    found = torch.nn.functional.grid_sample(ramp, grid, align_corners=False)
    assert found[0, 0, :, 1:-1].min() > 31.5 and found[0, 0].max() <= 63
    assert torch.allclose(found[0, 0, 0].diff()[1:-2], torch.tensor(0.5), atol=1e-3)
    whole = crop_maps(torch.eye(2, 3)[None], torch.rand(1, 4), (1.0, 1.0))
    assert (whole[..., :2].diagonal(dim1=1, dim2=2) > 0.8).all()


def test_colour_jitter_is_torchvision_s_in_one_order():
    functional = importlib.import_module("torchvision.transforms.functional")  # untyped

    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    image = Image.fromarray(pixels)
    factors = (1.2, 0.7, 1.3)
    for adjust, factor in zip(
        (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation),
        factors,
        strict=True,
    ):
        image = adjust(image, factor)
    draws = (torch.tensor([factors]) - 1) / 0.4 / 2 + 0.5
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    found = jitter(images, draws, 0.4)[0].permute(1, 2, 0)
    assert (found - torch.from_numpy(np.asarray(image).copy()).float()).abs().max() < 3.5


def test_colour_and_crop_of_held_images_need_no_pillow(image_folder, monkeypatch):
    data = load_data(image_folder, image_size=8)
    assert data.train.pixels is not None
    monkeypatch.setattr(Image, "fromarray", None)
    augmentation = Augmentation(crop=(0.3, 1.0), colour=0.4)
    loader = TrainingLoader(data.train, augmentation, 8, seed=0, device=torch.device("cpu"))
    images, _ = next(iter(loader.epoch(0)))
    assert (
        images.isfinite().all() and images.max() <= normalise(torch.full((1, 3, 1, 1), 255)).max()
    )
