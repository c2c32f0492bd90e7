"""Imports point down only: the drawing of the house as a table, read against the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import vitresnas

PACKAGE = Path(vitresnas.__file__).parent

# A room may import what stands below it, and what is named beside it in MAY.
FLOORS = (
    {"errors", "files", "arguments", "doors", "progress", "cache"},
    {"space"},
    {"kernels", "_C"},
    {"ops"},
    {"models"},
    {"supernet", "latency", "data"},
    {"train", "search"},
    {"training_for_search"},
    {"report", "export"},
)
# Rooms on one floor meet in files, never in imports.
MAY: dict[str, set[str]] = {
    "files": {"errors"},
    "doors": {"errors", "files"},
    "progress": {"doors"},
    "cache": {"errors", "files", "doors"},
}
# These import nothing of ours, so that they can be read and tested alone.
ALONE = {"kernels", "_C"}
# Commands may know every room; nothing may know them.
DOORS = {
    "__main__",
    "describe",
    "env",
    "fidelity",
    "import_official",
    "import_timm",
    "push",
    "quickstart",
    "verify",
}
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def sources() -> list[Path]:
    # kernels is a symlink, which rglob does not follow.
    found = [*PACKAGE.rglob("*.py"), *(PACKAGE / "kernels").rglob("*.py")]
    return sorted({path for path in found if "__pycache__" not in path.parts})


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_door(path: Path) -> bool:
    return path.name == "__main__.py" or room_of(path) in DOORS


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(room, dotted name) of every import of ours, lazy ones inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "vitresnas" and len(parts) > 1:
                yield parts[1], name


def forbidden(room: str, target: str) -> bool:
    if target == room:
        return False
    if room in ALONE:
        return True
    if target in DOORS:
        return True
    return not (FLOOR[target] < FLOOR[room] or target in MAY.get(room, set()))


PATHS = [path for path in sources() if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = room_of(path)
    assert room in FLOOR or room in DOORS, f"{room} has no floor: add it to the drawing"
    for target, name in imported(path):
        if target == "__version__":
            continue
        assert target in FLOOR or target in DOORS, f"{path.name} imports {name}, which has no floor"
        if not is_door(path):
            assert not forbidden(room, target), f"{room} may not import {name}"


def test_nothing_imports_a_door_of_another_room():
    for path in PATHS:
        for _, name in imported(path):
            module = name.rsplit(".", 1)[0]
            if module.endswith("__main__") or name.endswith("__main__"):
                assert path == PACKAGE / "__main__.py", f"{path.name} imports {name}"


def test_the_table_would_notice():
    assert forbidden("space", "models") and forbidden("train", "search")
    assert forbidden("search", "train") and forbidden("kernels", "errors")
    assert forbidden("latency", "supernet") and forbidden("models", "describe")
    assert not forbidden("models", "ops") and not forbidden("search", "latency")
    assert len(PATHS) > 30
