"""Data that cannot be learned from is refused in one sentence that names it."""

from __future__ import annotations

import io
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.conftest import picture
from vitresnas.data import Augmentation, TrainingImages, TrainingLoader, load_data
from vitresnas.data.load import open_source
from vitresnas.data.sources import decode, to_square
from vitresnas.errors import DataError


def refusal(spec, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_data(spec, image_size=8, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_unknown_path(tmp_path):
    assert f"no data at '{tmp_path / 'nowhere'}'" in refusal(tmp_path / "nowhere")


def test_a_file_that_is_not_parquet(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "is a file, expected a folder" in refusal(tmp_path / "notes.txt")


def test_empty_folder(tmp_path):
    assert f"{tmp_path} holds no images" in refusal(tmp_path)


def test_images_without_class_folders(image_folder):
    assert "holds 20 images but no labels" in refusal(image_folder / "cat")


def test_empty_class_folder(image_folder):
    (image_folder / "bird").mkdir()
    assert "bird holds no images" in refusal(image_folder)


def test_one_class(image_folder):
    shutil.rmtree(image_folder / "dog")
    assert "the class 'cat' alone" in refusal(image_folder)


def test_a_class_too_small_to_split(image_folder):
    for path in sorted((image_folder / "cat").iterdir())[2:]:
        path.unlink()
    assert "2 images of class 'cat'" in refusal(image_folder)


def test_truncated_image_is_named(image_folder):
    broken = image_folder / "cat" / "03.png"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(DataError, match=r"03\.png"):
        data = load_data(image_folder, image_size=8)
        _ = data.test, data.train.pixels  # whichever split it fell into


def test_a_text_file_in_disguise_is_named(image_folder):
    (image_folder / "cat" / "03.png").write_text("not an image")
    with pytest.raises(DataError, match=r"03\.png is not an image"):
        data = load_data(image_folder, image_size=8)
        _ = data.test, data.train.pixels


def test_a_broken_link_is_an_image_that_cannot_be_read(image_folder):
    path = image_folder / "cat" / "03.png"
    path.unlink()
    path.symlink_to("gone.png")
    with pytest.raises(DataError, match=r"cannot decode .*03\.png .*No such file"):
        data = load_data(image_folder, image_size=8)
        _ = data.test, data.train.pixels


@pytest.mark.parametrize(
    ("spec", "reason"), [("~nobody-of-this-name", "home directory"), ("a" * 300, "name too long")]
)
def test_paths_that_cannot_be_looked_at(spec, reason):
    assert reason in refusal(spec)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM"])
def test_whatever_is_wrong_with_an_image_it_is_named(kind):
    buffer = io.BytesIO()
    picture(0, side=24).save(buffer, kind)
    whole, rng = buffer.getvalue(), np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            damaged[place] = rng.integers(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                decode(bytes(damaged[: rng.integers(1, len(whole) + 1)]), "the image")
        except DataError as error:
            refused += 1
            assert "the image" in str(error) and "\n" not in str(error)
    assert refused


def test_a_line_of_pixels_is_cut_to_its_middle():
    pixels = np.arange(60_000).astype(np.uint8)[None, :, None].repeat(3, 2)
    assert to_square(Image.fromarray(pixels), 8, Image.Resampling.BICUBIC).shape == (3, 8, 8)
    tall = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 0, 2)))
    assert to_square(tall, 8, Image.Resampling.BICUBIC).shape == (3, 8, 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_truncated_image_in_a_worker_keeps_its_sentence(image_folder, workers):
    source = open_source(image_folder)
    broken = image_folder / "cat" / "03.png"
    broken.write_bytes(broken.read_bytes()[:300])
    images = source.splits["train"]
    train = TrainingImages(images, np.arange(50), size=8, budget=0)
    augmentation = Augmentation(policy="rand-m5")
    device = torch.device("cpu")
    loader = TrainingLoader(train, augmentation, 10, seed=0, device=device, workers=workers)
    with pytest.raises(DataError) as caught:
        list(loader.epoch(0))
    assert "03.png" in str(caught.value) and "\n" not in str(caught.value)


def test_class_missing_from_training(image_folder, tmp_path):
    root = tmp_path / "split"
    root.mkdir()
    shutil.copytree(image_folder, root / "test")
    image_folder.rename(root / "train")
    (root / "test" / "cat").rename(root / "test" / "wolf")
    assert "has a class 'wolf'" in refusal(root)


def test_splits_without_a_training_split_are_no_classes(image_folder, tmp_path):
    root = tmp_path / "split"
    root.mkdir()
    shutil.copytree(image_folder, root / "test")
    image_folder.rename(root / "val")
    assert "has the splits test, validation and no folder train" in refusal(root)


def test_parquet_without_labels(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0, 1] * 10, columns=("image", "wording"))
    assert "labels are missing" in refusal(tmp_path)


def test_parquet_row_without_a_label(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0, 1, None, 1] * 5)
    assert "row 2 of the train split" in refusal(tmp_path)


def test_parquet_label_out_of_range(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0, 1, 1, 7] * 5)
    assert "row 3 of the train split" in refusal(tmp_path) and "7" in refusal(tmp_path)


def test_parquet_label_of_no_class_at_all(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0, 1, 2**40] * 5, names=None)
    assert f"has the label {2**40} (image 2) among 15 images" in refusal(tmp_path)


def test_parquet_classes_without_names_are_those_of_training(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0, 1, 2] * 5, names=None)
    write_parquet(tmp_path, "test", [0, 1], names=None)
    assert load_data(tmp_path, image_size=8).class_names == ("0", "1", "2")


def test_parquet_files_that_differ(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0, 1] * 5).rename(tmp_path / "train-00001.parquet")
    path = write_parquet(tmp_path, "train", [0, 1] * 5)
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path)
    words = pyarrow.array(["cat", "dog"] * 5)
    parquet.write_table(table.set_column(table.column_names.index("label"), "label", words), path)
    assert "differ in their columns" in refusal(tmp_path)


def test_parquet_without_training_split(write_parquet, tmp_path):
    write_parquet(tmp_path, "test", [0, 1] * 5)
    assert "no train-*.parquet" in refusal(tmp_path)


def test_damaged_parquet(write_parquet, tmp_path):
    path = write_parquet(tmp_path, "train", [0, 1] * 10)
    path.write_bytes(path.read_bytes()[:200])
    assert f"cannot read {path} as Parquet" in refusal(tmp_path)


def test_parquet_of_one_class(write_parquet, tmp_path):
    write_parquet(tmp_path, "train", [0] * 10, names=None)
    assert "the class '0' alone" in refusal(tmp_path)
