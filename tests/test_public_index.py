import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import vitresnas

ROOT = Path(__file__).parent.parent

# Rooms that a laptop without torch can use: to read and reshape results, to plan a search.
TORCH_FREE = (
    "vitresnas",
    "vitresnas.errors",
    "vitresnas.files",
    "vitresnas.doors",
    "vitresnas.__main__",
    "vitresnas.describe",
    "vitresnas.import_official",
    "vitresnas.space",
    "vitresnas.space.__main__",
    "vitresnas.space.network_def",
    "vitresnas.latency.table",
    "vitresnas.search.candidate",
    "vitresnas.search.constraint",
    "vitresnas.search.evolution",
    "vitresnas.search.strategy",
)


def test_every_public_name_is_there_and_comes_from_its_home():
    for name in vitresnas.__all__:
        value = getattr(vitresnas, name)
        if name != "__version__":
            home = importlib.import_module(vitresnas._HOME[name])
            assert value is getattr(home, name)
    assert vitresnas.__all__ == sorted(vitresnas.__all__)
    assert set(vitresnas.__all__) == {*vitresnas._HOME, "__version__"}
    assert set(vitresnas.__all__) <= set(dir(vitresnas))


def test_type_checkers_read_the_same_index():
    tree = ast.parse(Path(vitresnas.__file__).read_text())
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node)
    )
    declared = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == vitresnas._HOME


def test_no_public_name_hides_a_module():
    package = Path(vitresnas.__file__).parent
    modules = {path.stem for path in package.iterdir()}
    assert not modules & set(vitresnas._HOME)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = vitresnas.Nonsense


def test_the_version_is_the_one_of_the_project():
    project = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{vitresnas.__version__}"\n' in project


def test_rooms_without_torch_do_not_import_it():
    program = f"""
import importlib, sys
for name in {TORCH_FREE!r}:
    importlib.import_module(name)
    for heavy in ("torch", "timm", "triton", "sklearn", "matplotlib"):
        assert heavy not in sys.modules, f"{{name}} imports {{heavy}}"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
