"""WebDataset shards: plain tar files in which neighbours with one key are one labelled image.

`0007.jpg` and `0007.cls` are the sample 0007. Training here draws images by (seed, epoch, index),
so that it resumes and repeats exactly; a stream through a shuffle buffer cannot. A tar file without
compression is as good for that: its headers are read once for offsets, then any image is one read.
That is all that is needed of the `webdataset` package, whose decoders also load pickles; here
images and labels are the only members that are ever opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitresnas.cache import entry_folder
from vitresnas.data.folder import SPLIT_NAMES, SUFFIXES
from vitresnas.data.sources import Source, decode
from vitresnas.data.splits import Labels, numbered_classes
from vitresnas.doors import say
from vitresnas.errors import DataError, StorageError
from vitresnas.files import atomic_path, digest

CLASS_NAMES = "classnames.txt"  # one name a line, beside the shards; numbers where it is missing
REMEMBERED_FROM = 20_000  # samples of a split from which on its index is kept in the cache

_COLUMNS = ("shard", "offset", "size", "label", "key")


@dataclass(frozen=True, eq=False)
class ShardImages:
    """Images by their place in the shards; nothing is open between two reads."""

    shards: tuple[Path, ...]
    index: dict[str, npt.NDArray[Any]]  # arrays, so that workers share its memory
    resample: Image.Resampling = Image.Resampling.BICUBIC

    @property
    def labels(self) -> Labels:
        return self.index["label"]

    def read(self, index: int) -> Image.Image:
        shard, offset, size, _, key = (self.index[name][index] for name in _COLUMNS)
        path = self.shards[shard]
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        return decode(content, f"the image of {key.decode()} in {path}")


def find_shards(path: Path) -> list[Path]:
    """The tar files that a path stands for; none means that it is something else."""
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    splits = (entry for entry in path.iterdir() if entry.name.lower() in SPLIT_NAMES)
    inside = (shard for folder in splits for shard in folder.glob("*.tar"))
    return sorted(path.glob("*.tar")) or sorted(inside)


def open_shards(path: Path, shards: list[Path]) -> Source:
    """Read every shard's headers and labels, no image yet. Raises DataError."""
    by_split: dict[str, list[Path]] = {}
    for shard in shards:
        by_split.setdefault(_split_of(shard, path), []).append(shard)
    if "train" not in by_split:
        raise DataError(
            f"{path} has shards of the splits {', '.join(sorted(by_split))} and none of train: "
            "add one, named as in train-0000.tar"
        )
    root = path.parent if path.is_file() else path
    splits = {
        split: ShardImages(tuple(found), _remembered_index(found))
        for split, found in by_split.items()
    }
    names = _class_names(root, splits["train"].labels, f"the training data of {path}")
    for split, images in splits.items():
        _check_labels(images, len(names), split)
    fingerprint = digest(
        {
            split: [
                [[shard.name, shard.stat().st_size] for shard in images.shards],
                hashlib.sha256(images.labels.tobytes()).hexdigest(),
            ]
            for split, images in splits.items()
        }
    )
    return Source(root.resolve().name, names, splits, fingerprint)


def _split_of(shard: Path, root: Path) -> str:
    """By the first word of its name that is a split's, or else by its folder; train where none."""
    words = re.split(r"[^a-z]+", shard.stem.lower())
    folder = [] if shard.parent == root else [shard.parent.name.lower()]
    return next((SPLIT_NAMES[word] for word in (*words, *folder) if word in SPLIT_NAMES), "train")


def _remembered_index(shards: list[Path]) -> dict[str, npt.NDArray[Any]]:
    """The index, from the cache where these very files were read before and are many."""
    state = [[str(s.resolve()), s.stat().st_size, s.stat().st_mtime_ns] for s in shards]
    what = f"index of {len(shards)} shards from {shards[0].name}"
    kept = entry_folder(what, {"shards": state}, make=False) / "index.npz"
    with contextlib.suppress(OSError, EOFError, ValueError, KeyError, BadZipFile):  # damaged
        with np.load(io.BytesIO(kept.read_bytes()), allow_pickle=False) as found:
            return {name: found[name] for name in _COLUMNS}
    index = _index(shards)
    if len(index["label"]) >= REMEMBERED_FROM:
        try:
            entry_folder(what, {"shards": state})
            with atomic_path(kept) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **index)
        except StorageError as error:
            say(f"the index of the shards could not be cached: {error}")
    return index


def _index(shards: list[Path]) -> dict[str, npt.NDArray[Any]]:
    rows = []
    for number, shard in enumerate(shards):
        try:
            with tarfile.open(shard, "r:") as archive:
                rows += [(number, *row) for row in _samples(archive, shard)]
        except (tarfile.TarError, OSError) as error:
            raise DataError(
                f"cannot read {shard} as a tar file without compression ({error}): "
                "write it again, uncompressed"
            ) from None
    if not rows:
        raise DataError(
            f"{shards[0]} holds no labelled images: put a .cls file of the same name beside every "
            "image"
        )
    columns = zip(*rows, strict=True)
    return {name: np.array(column) for name, column in zip(_COLUMNS, columns, strict=True)}


def _samples(archive: tarfile.TarFile, shard: Path) -> Iterator[tuple[int, int, int, bytes]]:
    """(offset, bytes, label, key) of every sample: neighbours alike up to their first dot."""
    members = (member for member in archive if member.isreg())
    for key, group in groupby(members, lambda member: _split_name(member.name)[0]):
        parts = {_split_name(member.name)[1]: member for member in group}
        image = next((parts[kind] for kind in parts if f".{kind}" in SUFFIXES), None)
        label = _label(archive, parts)
        if image is None and label is None:
            continue  # something else, such as a note on the data
        if image is None or label is None:
            missing, cure = ("image", ".jpg or .png") if image is None else ("label", ".cls")
            raise DataError(
                f"{key} in {shard} has no {missing} ({', '.join(sorted(parts))}): add its {cure} "
                "or remove it"
            )
        yield image.offset_data, image.size, label, key.encode()


def _split_name(name: str) -> tuple[str, str]:
    folder, _, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem), kind.lower()


def _label(archive: tarfile.TarFile, parts: dict[str, tarfile.TarInfo]) -> int | None:
    """`cls` holds a number as text, `json` may hold one under "label"."""
    for kind in ("cls", "json"):
        file = archive.extractfile(parts[kind]) if kind in parts else None
        if file is None:
            continue
        try:
            found = int(file.read()) if kind == "cls" else json.loads(file.read())["label"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**31:
            return found
    return None


def _class_names(root: Path, labels: Labels, where: str) -> tuple[str, ...]:
    path = root / CLASS_NAMES
    if not path.exists():
        return numbered_classes(labels, where)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path} as text ({error}): write it in UTF-8") from None
    return tuple(line.strip() for line in lines if line.strip())


def _check_labels(images: ShardImages, classes: int, split: str) -> None:
    outside = np.flatnonzero((images.labels < 0) | (images.labels >= classes))
    if len(outside):
        index = int(outside[0])
        shard = images.shards[images.index["shard"][index]]
        raise DataError(
            f"{images.index['key'][index].decode()} in {shard} has the label "
            f"{images.labels[index]}, expected 0 to {classes - 1} ({split}): fix it or remove it"
        )
