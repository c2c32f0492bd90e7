"""Images as they come: every mode becomes RGB or is refused by name, broken ones are left out."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitresnas.data import Augmentation, TrainingLoader, load_data
from vitresnas.data.folder import ImageFiles
from vitresnas.data.sources import decode
from vitresnas.errors import DataError

RED = (200, 40, 30)
GREY = np.arange(64, dtype=np.uint16).reshape(8, 8)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "P", "LA", "L", "1", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    red = Image.new("RGB", (9, 9), RED)
    found = decode(encoded(red.convert(mode), "TIFF"), "it")
    assert found.mode == "RGB"
    poorer = mode in ("LA", "L", "1", "P")
    expected = red.convert(mode).convert("RGB") if poorer else red
    difference = np.abs(np.asarray(found, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.max() <= 3


def test_a_cmyk_jpeg_keeps_its_colour():
    content = encoded(Image.new("RGB", (16, 16), RED).convert("CMYK"), "JPEG", quality=95)
    colour = np.asarray(decode(content, "it")).reshape(-1, 3).mean(0)
    assert np.abs(colour - RED).max() < 6


def test_a_palette_with_transparency_warns_nobody():
    palette = Image.new("RGB", (9, 9), RED).convert("P")
    content = encoded(palette, transparency=bytes([255] * 200 + [0] * 56))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(content, "it").mode == "RGB"


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut_off(form):
    content = encoded(Image.fromarray(GREY * 1024), form)
    found = np.asarray(decode(content, "it"))
    assert found.shape == (8, 8, 3)
    np.testing.assert_array_equal(found[..., 0], GREY * 4)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"it is empty \(0 bytes\)"),
        (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "32-bit pixels, mode F"),
        (encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "32-bit pixels, mode I"),
        (b"GIF89a and no more", "it"),
    ],
)
def test_what_cannot_be_an_image_is_refused_in_one_sentence(content, sentence):
    with pytest.raises(DataError, match=sentence) as caught:
        decode(content, "it")
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_refused_by_name(tmp_path):
    (tmp_path / "nothing.png").touch()
    with pytest.raises(DataError, match=r"nothing\.png is empty"):
        decode(tmp_path / "nothing.png", str(tmp_path / "nothing.png"))


def ruin(path: Path) -> None:
    """As a lost block does: the file keeps its size."""
    path.write_bytes(path.read_bytes()[:60].ljust(path.stat().st_size, b"\0"))


def break_images(folder: Path, *positions: int) -> None:
    """Ruin these of the training images."""
    train = load_data(folder, image_size=8, memory_budget=0).train
    assert isinstance(train.images, ImageFiles)
    for position in positions:
        ruin(train.images.paths[train.indices[position]])


def epoch(data, workers: int = 0, augmentation: Augmentation | None = None):
    """Images, labels and stand-ins of one epoch."""
    device = torch.device("cpu")
    augmentation = augmentation or Augmentation()
    loader = TrainingLoader(data.train, augmentation, 8, seed=0, device=device, workers=workers)
    batches = [(*batch, loader.stand_ins) for batch in loader.epoch(0)]
    images, labels, stand_ins = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels), sum(stand_ins)


def test_the_next_readable_image_stands_in_for_a_broken_one(image_folder, capsys):
    break_images(image_folder, 3, 4)
    held = load_data(image_folder, image_size=8, unreadable_share=0.1)
    lazy = load_data(image_folder, image_size=8, unreadable_share=0.1, memory_budget=0)
    assert held.train.positions[[2, 3, 4, 5]].tolist() == [2, 5, 5, 5]
    assert torch.equal(held.train[3][0], held.train[5][0]) and held.train[3][1] == held.train[5][1]
    found = [epoch(held), epoch(lazy), epoch(lazy, workers=2)]
    for images, labels, stand_ins in found:
        assert stand_ins == 2
        assert torch.equal(images, found[0][0]) and torch.equal(labels, found[0][1])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6 and all("left out of the training images" in line for line in said)
    assert epoch(lazy, augmentation=Augmentation(policy="rand-m5"))[2] == 2


def test_unreadable_images_may_lie_together(image_folder):
    break_images(image_folder, *range(20))
    lazy = load_data(image_folder, image_size=8, unreadable_share=0.7, memory_budget=0)
    assert lazy.train.square(0)[1] == 20


@pytest.mark.parametrize("budget", [0, 2**30])
def test_more_than_the_stated_share_is_refused(image_folder, budget):
    break_images(image_folder, 3, 4, 11)
    options = {"image_size": 8, "memory_budget": budget}
    data = load_data(image_folder, **options, unreadable_share=0.04)  # 1 of 32
    if budget:
        with pytest.raises(DataError, match=r"3 of 32 training images .* share of 0\.04 .*\.png"):
            epoch(data)
    with pytest.raises(DataError, match=r"^cannot decode .*\.png"):
        epoch(load_data(image_folder, **options))


def test_holdout_and_test_leave_out_what_they_cannot_read(image_folder, tmp_path):
    root = tmp_path / "split"
    root.mkdir()
    image_folder.rename(root / "train")
    for name in ("cat", "dog"):
        (root / "test" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (9, 9), RED).save(root / "test" / name / f"{number}.png")
    ruin(root / "test" / "cat" / "2.png")
    data = load_data(root, image_size=8, unreadable_share=0.1)
    assert (len(data.test), data.test.left_out) == (9, 1)
    assert data.test.labels.tolist() == [0] * 4 + [1] * 5
    assert data.test.images.float().mean((1, 2, 3)).min() > 80  # none is black
    with pytest.raises(DataError, match=r"cannot decode .*cat/2\.png"):
        _ = load_data(root, image_size=8).test
