"""Digits, image folders and Parquet arrive as the same kind of data."""

from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from vitresnas.data import load_data
from vitresnas.data.sources import to_square
from vitresnas.errors import InputError


def test_digits_keep_their_pixels():
    from sklearn.datasets import load_digits

    data = load_data("digits", image_size=8)
    known = {np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images}
    for images in (data.holdout, data.test):
        assert torch.equal(images.images[:, 0], images.images[:, 2])
        assert all(image.numpy().tobytes() in known for image in images.images[:, 0].contiguous())


def test_digits_are_enlarged_bilinearly():
    small, large = load_data(None, image_size=8), load_data(None, image_size=16)
    expected = torch.nn.functional.interpolate(
        small.holdout.images.float(), scale_factor=2, mode="bilinear"
    )
    assert (large.holdout.images - expected).abs().max() <= 1  # Pillow rounds to whole values


def test_a_folder_is_split_in_three(image_folder):
    data = load_data(image_folder, image_size=8)
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.holdout), len(data.test)) == (32, 8, 10)
    assert data.holdout.images.shape == (8, 3, 8, 8)
    assert data.holdout.images.dtype == torch.uint8
    assert "no test split: 10 of its images" in data.notes[0]


def test_given_splits_are_kept(image_folder, tmp_path):
    root = tmp_path / "split"
    (root / "train").parent.mkdir()
    image_folder.rename(root / "train")
    (root / "val" / "dog").mkdir(parents=True)
    (root / "val" / "cat").mkdir()
    Image.new("RGB", (9, 9), (255, 0, 0)).save(root / "val" / "dog" / "red.jpg")
    Image.new("RGB", (9, 9), (0, 255, 0)).save(root / "val" / "cat" / "green.jpg")
    data = load_data(root, image_size=8)
    assert data.test.labels.tolist() == [0, 1]
    assert data.test.images[1].float().mean((1, 2))[0] > 240
    assert (len(data.train), len(data.holdout)) == (40, 10)
    assert data.notes == ()


def test_the_data_id_follows_the_files(image_folder):
    before = load_data(image_folder, image_size=8).id
    assert load_data(str(image_folder), image_size=8).id == before
    assert load_data(image_folder, image_size=12).id != before
    Image.new("RGB", (5, 5)).save(image_folder / "cat" / "new.png")
    assert load_data(image_folder, image_size=8).id != before


def test_parquet_is_read_with_its_class_names(write_parquet, tmp_path):
    write_parquet(tmp_path / "data", "train", [0, 1] * 20)
    write_parquet(tmp_path / "data", "test", [1, 0, 1])
    data = load_data(tmp_path, image_size=8)
    assert data.class_names == ("cat", "dog")
    assert data.test.labels.tolist() == [1, 0, 1]
    assert (len(data.train), len(data.holdout)) == (32, 8)


def test_withheld_test_labels_leave_validation_as_the_test(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0, 1] * 20)
    write_parquet(tmp_path, "validation", [0, 1])
    write_parquet(tmp_path, "test", [-1, -1, -1])
    assert len(load_data(tmp_path, image_size=8).test) == 2


def test_an_empty_test_split_counts_as_none(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0, 1] * 20)
    write_parquet(tmp_path, "test", [])
    assert len(load_data(tmp_path, image_size=8).test) == 8


def test_other_labels_in_parquet_files_of_the_same_size_are_other_data(write_parquet, tmp_path):
    ids, sizes = set(), set()
    for labels in ([0, 1] * 20, [1, 0] * 20):
        sizes.add(write_parquet(tmp_path, "train", labels).stat().st_size)
        ids.add(load_data(tmp_path, image_size=8).id)
    assert len(sizes) == 1 and len(ids) == 2


def test_validation_beside_test_is_the_holdout(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0, 1] * 10)
    write_parquet(tmp_path, "validation", [0, 1, 1])
    write_parquet(tmp_path, "test", [0, 1])
    data = load_data(tmp_path, image_size=8)
    assert (len(data.train), len(data.holdout), len(data.test)) == (20, 3, 2)


def test_missing_pyarrow_names_the_command(write_parquet, tmp_path, monkeypatch):
    write_parquet(tmp_path, "train", [0, 1] * 10)
    real = builtins.__import__

    def without_pyarrow(name, *arguments, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    for name in [name for name in sys.modules if name.startswith("pyarrow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(InputError, match=r"pip install -e '\.\[data\]'"):
        load_data(tmp_path, image_size=8)


def test_lazy_and_decoded_training_images_are_equal(image_folder):
    decoded = load_data(image_folder, image_size=8).train
    lazy = load_data(image_folder, image_size=8, memory_budget=0).train
    assert decoded.pixels is not None and lazy.pixels is None
    for index in (0, 7, 31):
        assert torch.equal(decoded[index][0], lazy[index][0])
        assert decoded[index][1] == lazy[index][1]


def test_batches_are_normalised_like_imagenet(image_folder):
    holdout = load_data(image_folder, image_size=8).holdout
    batches = list(holdout.batches(3))
    assert [len(labels) for _, labels in batches] == [3, 3, 2]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (holdout.images[3:6] / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(batches[1][0], expected)


def test_the_crop_is_central_and_keeps_proportions():
    wide = Image.new("RGB", (40, 20))
    wide.paste((255, 255, 255), (10, 0, 30, 20))
    assert to_square(wide, 10, Image.Resampling.BOX).min() == 255
