"""Hugging Face's Parquet layout: `image: {bytes, path}`, `label: ClassLabel`, read with pyarrow.

Files are named `<split>-00000-of-00001.parquet`, in the folder itself or in its data/ subfolder.
The encoded bytes are held in memory, shared with the workers; images are decoded when asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitresnas.data.folder import SPLIT_NAMES
from vitresnas.data.sources import Source, decode
from vitresnas.data.splits import Labels, numbered_classes
from vitresnas.errors import DataError, InputError, how_to_install
from vitresnas.files import digest


@dataclass(frozen=True, eq=False)
class ParquetImages:
    """Encoded images by row."""

    encoded: Any  # a pyarrow ChunkedArray of binary
    labels: Labels
    where: str
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def read(self, index: int) -> Image.Image:
        name = f"row {index} of {self.where}"
        content = self.encoded[index].as_py()
        if content is None:
            raise DataError(f"{name} holds no image bytes: store the images inside the files")
        return decode(content, name)


def find_parquet_files(path: Path) -> list[Path]:
    """The Parquet files that a path stands for; none means that it is something else."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))


def open_parquet(path: Path, files: list[Path]) -> Source:
    """Read every split's encoded images and labels. Raises DataError, InputError (no pyarrow)."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError(f"reading {path} needs pyarrow: {how_to_install('data')}") from None
    by_split: dict[str, list[Path]] = {}
    for file in files:
        name = file.stem.split("-")[0].lower()
        # A file whose name tells no split is training data, as `datasets` reads it.
        by_split.setdefault(SPLIT_NAMES.get(name, "train"), []).append(file)
    if "train" not in by_split:
        raise DataError(
            f"{path} has the splits {', '.join(sorted(by_split))} and no train-*.parquet: add it"
        )
    tables = {split: _read_table(split_files) for split, split_files in by_split.items()}
    where = {split: f"the {split} split of {path}" for split in tables}
    labels = {split: _labels(table, where[split]) for split, table in tables.items()}
    names = _class_names(tables["train"]) or numbered_classes(labels["train"], where["train"])
    splits = {}
    for split, table in tables.items():
        if split != "train" and (labels[split] == -1).all():
            continue  # empty, or a published test split whose labels are withheld
        _check_labels(labels[split], len(names), where[split])
        splits[split] = ParquetImages(_encoded(table, where[split]), labels[split], where[split])
    fingerprint = digest(
        {
            "files": {
                split: [[file.name, file.stat().st_size] for file in found]
                for split, found in by_split.items()
            },
            # Other labels do not change the size of a file.
            "labels": {
                split: hashlib.sha256(images.labels.tobytes()).hexdigest()
                for split, images in splits.items()
            },
        }
    )
    root = path.parent if path.is_file() else path
    return Source(root.resolve().name, names, splits, fingerprint)


def _read_table(files: list[Path]) -> Any:
    import pyarrow
    import pyarrow.parquet

    tables = []
    for file in files:
        try:
            tables.append(pyarrow.parquet.read_table(file))
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"cannot read {file} as Parquet ({reason}): download or write it again"
            ) from None
        for column in ("image", "label"):
            if column not in tables[-1].column_names:
                missing = "labels" if column == "label" else "images"
                raise DataError(
                    f"{file} has the columns {', '.join(tables[-1].column_names)} and no "
                    f"{column!r}, so its {missing} are missing: rename or add that column"
                )
    try:
        # Every file carries the same metadata; the first one's names the classes.
        return pyarrow.concat_tables(tables, promote_options="default")
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{files[0]} and the files of its split differ in their columns ({reason}): write "
            "them with the same columns"
        ) from None


def _labels(table: Any, where: str) -> Labels:
    column = table.column("label")
    if column.null_count:
        rows = column.is_null().to_numpy()
        raise DataError(
            f"row {int(np.argmax(rows))} of {where} has no label: label it or remove it"
        )
    values = column.to_numpy()
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            f"the labels of {where} are {column.type}, expected whole numbers (a ClassLabel)"
        )
    return np.asarray(values, dtype=np.int64)


def _check_labels(labels: Labels, classes: int, where: str) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        row = int(outside[0])
        raise DataError(
            f"row {row} of {where} has the label {labels[row]}, expected 0 to {classes - 1}: "
            "label it or remove it"
        )


def _encoded(table: Any, where: str) -> Any:
    import pyarrow
    import pyarrow.compute

    column = table.column("image")
    if pyarrow.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pyarrow.compute.struct_field(column, "bytes")
    if not (pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type)):
        raise DataError(
            f"the images of {where} are {column.type}, expected a struct with bytes and path"
        )
    return column


def _class_names(table: Any) -> tuple[str, ...] | None:
    """ClassLabel names from the Hugging Face metadata, if they are there."""
    try:
        metadata = json.loads((table.schema.metadata or {})[b"huggingface"])
        return tuple(metadata["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return None
