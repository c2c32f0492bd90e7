"""WebDataset shards: tar files read by offset, the same data as a folder of the same images."""

from __future__ import annotations

import gzip
import pickle

import numpy as np
import pytest
import torch

from tests.data.conftest import picture
from vitresnas.data import load_data, webdataset
from vitresnas.data.sources import to_square
from vitresnas.errors import DataError

LABELS = [0] * 20 + [1] * 30


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_shards_are_read_by_offset_in_any_order(write_shard, tmp_path, kind):
    write_shard(tmp_path / "pets-train-000.tar", LABELS[:25], kind=kind)
    write_shard(tmp_path / "pets-train-001.tar", LABELS[25:], kind=kind)
    write_shard(tmp_path / "pets-val-000.tar", [1, 0, 1], kind=kind)
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    data = load_data(tmp_path, image_size=8)
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.holdout)) == (40, 10)
    assert data.test.labels.tolist() == [1, 0, 1]
    images = data.train.images
    for index in (49, 3, 27):
        wanted = to_square(picture(index % 25), 8, images.resample)
        assert np.array_equal(to_square(images.read(index), 8, images.resample), wanted)
    assert torch.equal(data.train.labels, torch.tensor(LABELS)[data.train.indices])


def test_splits_may_be_folders_and_one_file_is_enough(write_shard, tmp_path):
    write_shard(tmp_path / "train" / "0.tar", LABELS)
    write_shard(tmp_path / "test" / "0.tar", [0, 1])
    data = load_data(tmp_path, image_size=8)
    assert len(data.test) == 2 and data.class_names == ("0", "1")
    alone = load_data(tmp_path / "train" / "0.tar", image_size=8)
    assert len(alone.test) == 10 and "no test split" in alone.notes[0]


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


def test_pickles_and_notes_are_never_opened(write_shard, tmp_path, capsys):
    bomb = pickle.dumps(Bomb())
    others = {"some/0049.pyd": bomb, "notes.pkl": bomb, "README": b"about"}
    write_shard(tmp_path / "train.tar", LABELS, others=others)
    assert len(load_data(tmp_path, image_size=8).train) == 32
    assert capsys.readouterr().out == ""


def refusal(path) -> str:
    with pytest.raises(DataError) as caught:
        load_data(path, image_size=8)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({"x.jpg": b"..."}, "x in .*train.tar has no label"),
        ({"x.jpg": b"...", "x.cls": b"cat"}, "x in .*train.tar has no label"),
        ({"x.cls": b"1"}, "x in .*train.tar has no image"),
        ({"x.jpg": b"...", "x.cls": b"-1"}, "x in .*train.tar has the label -1, expected 0 to 1"),
    ],
)
def test_samples_that_cannot_be_used_are_named(write_shard, tmp_path, others, sentence):
    write_shard(tmp_path / "train.tar", LABELS, others=others)
    with pytest.raises(DataError, match=sentence):
        load_data(tmp_path, image_size=8)


def test_a_broken_image_is_named(write_shard, tmp_path):
    others = {f"x{n}.jpg": b"..." for n in range(40)} | {f"x{n}.cls": b"1" for n in range(40)}
    others = dict(sorted(others.items()))
    write_shard(tmp_path / "train.tar", LABELS, others=others)
    assert "the image of x" in refusal(tmp_path) and "train.tar" in refusal(tmp_path)


def test_compressed_damaged_and_foreign_shards_are_named(write_shard, tmp_path):
    shard = write_shard(tmp_path / "train.tar", LABELS)
    whole = shard.read_bytes()
    shard.write_bytes(gzip.compress(whole))
    assert "as a tar file without compression" in refusal(tmp_path)
    shard.write_bytes(whole[:20000])
    assert "cannot read" in refusal(tmp_path) and "train.tar" in refusal(tmp_path)
    shard.rename(tmp_path / "test.tar")
    assert "none of train" in refusal(tmp_path)


def test_the_index_of_many_samples_is_read_once(write_shard, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(webdataset, "REMEMBERED_FROM", 50)
    shard = write_shard(tmp_path / "data" / "train.tar", LABELS)
    first = load_data(shard.parent, image_size=8)
    assert len(list((tmp_path / "cache").rglob("index.npz"))) == 1
    monkeypatch.setattr(webdataset, "_index", None)
    again = load_data(shard.parent, image_size=8)
    assert again.id == first.id and torch.equal(again.holdout.images, first.holdout.images)
    monkeypatch.undo()
    write_shard(shard, LABELS[::-1])
    assert load_data(shard.parent, image_size=8).id != first.id


def test_an_index_that_cannot_be_kept_or_is_damaged_is_made_anew(
    write_shard, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(webdataset, "REMEMBERED_FROM", 50)
    shard = write_shard(tmp_path / "data" / "train.tar", LABELS)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first = load_data(shard.parent, image_size=8)
    assert "could not be cached: cannot write" in capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert load_data(shard.parent, image_size=8).id == first.id
    (kept,) = (tmp_path / "cache").rglob("index.npz")
    for damage in (b"", b"not a zip", kept.read_bytes()[:100]):
        kept.write_bytes(damage)
        assert load_data(shard.parent, image_size=8).id == first.id


def test_a_label_of_no_class_at_all_is_refused(write_shard, tmp_path):
    write_shard(tmp_path / "train.tar", [0, 1, 10**9] * 5)
    assert "has the label 1000000000 (image 2) among 15 images" in refusal(tmp_path)
    write_shard(tmp_path / "train.tar", [0, 1, 10**30] * 5)
    assert "has no label" in refusal(tmp_path)


def test_names_of_classes_that_are_no_text(write_shard, tmp_path):
    write_shard(tmp_path / "train.tar", LABELS)
    (tmp_path / "classnames.txt").write_bytes(b"\xff\xfe\x00")
    assert "classnames.txt as text" in refusal(tmp_path)
