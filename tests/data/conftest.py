"""Small folders and Parquet files of real images."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int, side: int = 12, mode: str = "RGB") -> Image.Image:
    channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 4, channels), np.uint8)
    return Image.fromarray(pixels.squeeze() if channels == 1 else pixels, mode)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """20 cats, 30 dogs, not square, in three image modes."""
    root = tmp_path / "pets"
    for name, count in (("cat", 20), ("dog", 30)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            mode = ("RGB", "RGBA", "L")[number % 3]
            picture(number, mode=mode).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    reason = 'needs pyarrow: pip install -e ".[data]"'
    pyarrow = pytest.importorskip("pyarrow", reason=reason)
    parquet = pytest.importorskip("pyarrow.parquet", reason=reason)

    def write(
        folder: Path,
        split: str,
        labels: list[int | None],
        *,
        names: tuple[str, ...] | None = ("cat", "dog"),
        columns: tuple[str, str] = ("image", "label"),
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        images = []
        for number in range(len(labels)):
            buffer = io.BytesIO()
            picture(number).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": f"{number}.png"})
        table = pyarrow.table({columns[0]: images, columns[1]: pyarrow.array(labels, "int64")})
        if names:
            label = {"names": list(names), "_type": "ClassLabel"}
            info = {"info": {"features": {"label": label}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        path = folder / f"{split}-00000-of-00001.parquet"
        parquet.write_table(table, path)
        return path

    return write


@pytest.fixture
def write_shard() -> Callable[..., Path]:
    """A WebDataset shard of small PNG images; other members, and labels as JSON, on request."""

    def write(
        path: Path, labels: list[int], *, kind: str = "cls", others: dict[str, bytes] | None = None
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:

            def add(name: str, content: bytes) -> None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

            for number, label in enumerate(labels):
                buffer = io.BytesIO()
                picture(number).save(buffer, "PNG")
                text = json.dumps({"label": label}) if kind == "json" else f"{label}\n"
                add(f"some/{number:04}.png", buffer.getvalue())
                add(f"some/{number:04}.{kind}", text.encode())
            for name, content in (others or {}).items():
                add(name, content)
        return path

    return write
