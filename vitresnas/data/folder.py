"""Image folders: one folder per class, with or without train/ and val/ or test/ above them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitresnas.data.sources import Source, decode, file_size
from vitresnas.data.splits import Labels
from vitresnas.errors import DataError
from vitresnas.files import digest

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files, opened when asked for."""

    paths: tuple[Path, ...]
    labels: Labels
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def read(self, index: int) -> Image.Image:
        return decode(self.paths[index], str(self.paths[index]))


def open_folder(root: Path) -> Source:
    """Read the names below `root`, no image yet. Raises DataError for a layout without labels."""
    found = {
        SPLIT_NAMES[p.name.lower()]: p for p in _folders(root) if p.name.lower() in SPLIT_NAMES
    }
    if "train" not in found:
        if found and set(found.values()) == set(_folders(root)):
            raise DataError(
                f"{root} has the splits {', '.join(sorted(found))} and no folder train: add it"
            )
        found = {"train": root}
    files = {split: _class_files(folder) for split, folder in found.items()}
    names = tuple(files["train"])
    for split, folder in found.items():
        strangers = sorted(set(files[split]) - set(names))
        if strangers:
            raise DataError(
                f"{folder} has a class {strangers[0]!r} that {found['train']} lacks: "
                "give every split the same class folders"
            )
    splits = {split: _images(classes, names) for split, classes in files.items()}
    fingerprint = digest(
        {
            split: [[str(path.relative_to(root)), file_size(path)] for path in images.paths]
            for split, images in splits.items()
        }
    )
    return Source(root.resolve().name, names, splits, fingerprint)


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its image files, both sorted."""
    classes = {entry.name: _image_files(entry) for entry in _folders(folder)}
    empty = [name for name, paths in classes.items() if not paths]
    if len(empty) == len(classes):
        loose = [entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES]
        raise DataError(
            f"{folder} holds {len(loose)} images but no labels: move them into one folder per class"
            if loose
            else f"{folder} holds no images: put them into one folder per class "
            "(for example cats/1.jpg, dogs/2.png), or give a folder of Parquet files"
        )
    if empty:
        raise DataError(
            f"the class folder {folder / empty[0]} holds no images: add some or remove the folder"
        )
    return classes


def _images(classes: dict[str, list[Path]], names: tuple[str, ...]) -> ImageFiles:
    pairs = [(path, names.index(name)) for name, paths in classes.items() for path in paths]
    labels = np.array([label for _, label in pairs], dtype=np.int64)
    return ImageFiles(tuple(path for path, _ in pairs), labels)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    )
