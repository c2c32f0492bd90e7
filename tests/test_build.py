"""The install: with a compiler, without one, and the CUDA sources where nvcc is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vitresnas.ops import native

ROOT = Path(__file__).parents[1]
NVCC = shutil.which("nvcc") or ""
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
PROGRAM = """
import sys
# An editable install beside this one would lend it the compiled module that it lacks.
sys.meta_path[:] = [f for f in sys.meta_path if not f.__module__.startswith("__editable__")]
import torch, vitresnas
from vitresnas.kernels import __doc__ as kernels
from vitresnas.latency.shipped import find_tables
from vitresnas.ops import native
from vitresnas.ops.masked_layer_norm import OP, masked_layer_norm
from vitresnas.ops.dispatch import choose
x = torch.randn(4, 3, 8)
y = masked_layer_norm(x, torch.ones(8), torch.zeros(8), torch.tensor([8, 5], dtype=torch.int32))
assert y[2:, :, 5:].count_nonzero() == 0 and y[2:, :, :5].count_nonzero() > 0
assert find_tables("cpu-xeon-2core").shipped
print(vitresnas.__file__, choose(OP, (x,)).name, native.missing(), sep="|")
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a build needs, without anything built."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "CMakeLists.txt", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("csrc", "kernels", "vitresnas", "bench/results"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    assert (copy / "vitresnas" / "kernels").is_symlink()
    return copy


def install(checkout: Path, **environment: str) -> tuple[Path, str]:
    """Install into a folder beside the checkout; the folder and what the build said."""
    target = checkout.parent / "site"
    command = [sys.executable, "-m", "pip", "install", str(checkout), "--target", str(target)]
    done = subprocess.run(
        [*command, "--no-build-isolation", "--no-deps", "-v"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target, done.stdout + done.stderr


def use(target: Path) -> tuple[str, str, str]:
    """File, backend and reason as the installed copy reports them, far from the checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "VITRESNAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=target.parent,
        env={**environment, "PYTHONPATH": str(target)},
    )
    assert done.returncode == 0, done.stderr
    file, backend, reason = done.stdout.strip().split("|")
    assert Path(file).is_relative_to(target)
    return file, backend, reason


@pytest.mark.slow
def test_without_a_compiler_the_install_warns_once_and_the_reference_runs(checkout):
    target, said = install(checkout, CXX="/no/such/compiler", VITRESNAS_CUDA="0")
    assert said.count("vitresnas._C was NOT built") == 1
    assert "apt install g++" in said
    assert not list((target / "vitresnas").glob("_C*.so"))
    assert (target / "vitresnas" / "kernels" / "masked_layer_norm.py").is_file()
    _, backend, reason = use(target)
    assert backend == "reference"
    assert reason.startswith("not built: install a C++17 compiler")


@pytest.mark.slow
@pytest.mark.skipif(
    native.missing() is not None, reason=f"the compiled module is {native.missing()}"
)
def test_a_wheel_without_cuda_carries_the_compiled_module(checkout):
    target, said = install(checkout, VITRESNAS_CUDA="0")
    assert "NOT built" not in said
    assert len(list((target / "vitresnas").glob("_C*.so"))) == 1
    _, backend, reason = use(target)
    assert (backend, reason) == ("cpp", "None")


@pytest.mark.slow
@pytest.mark.skipif(not NVCC, reason="there is no nvcc: install the CUDA toolkit")
def test_several_gpu_architectures_are_built_into_one_module(checkout):
    target, said = install(checkout, VITRESNAS_CUDA_ARCHITECTURES="90a-real;80-real")
    assert "no CUDA build" not in said
    program = "from vitresnas import _C; print(_C.has_cuda, _C.cuda_architectures)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(target)!r}); {program}"],
        capture_output=True,
        text=True,
        cwd=target.parent,
    )
    assert done.stdout.split() == ["True", "90a-real,80-real"], done.stderr


@pytest.mark.skipif(not NVCC, reason="there is no nvcc: install the CUDA toolkit")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_cuda_sources_compile_for_an_h100_without_spills(source, tmp_path):
    done = subprocess.run(
        [NVCC, "-gencode", "arch=compute_90a,code=sm_90a", "-std=c++17", "-Xptxas", "-v",
         "--Werror", "cross-execution-space-call", "-I", ROOT / "csrc",
         "-c", source, "-o", tmp_path / "object.o"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    usage = re.findall(r"Used (\d+) registers", done.stderr)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    if "__global__" in source.read_text():
        assert usage and spills, done.stderr
    assert all(int(registers) <= 255 for registers in usage)
    assert all(pair == ("0", "0") for pair in spills), done.stderr


@pytest.mark.skipif(
    native.missing() is not None, reason=f"the compiled module is {native.missing()}"
)
def test_asking_for_gpus_answers_with_a_code_where_there_are_none():
    module = native.module()
    if not module.has_cuda:
        pytest.skip("built without CUDA: put nvcc on PATH and run `pip install -e .` again")
    found = module.cuda_devices()
    assert found["message"]
    assert bool(found["devices"]) == (found["code"] == 0)
    assert "90" in module.cuda_architectures or os.environ.get("VITRESNAS_CUDA_ARCHITECTURES")
