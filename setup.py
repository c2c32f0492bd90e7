"""Runs CMake for the extension module `vitresnas._C`; everything else is in pyproject.toml.

Knobs: VITRESNAS_CUDA=0 leaves CUDA out, VITRESNAS_CUDA_ARCHITECTURES="90a;80" chooses targets,
CMAKE_ARGS passes anything else. Without a working compiler the install still succeeds, with one
warning, and every op runs on its plain-torch reference.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Builds with CUDA if there is one, else with C++ alone, else warns and builds nothing."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        attempts = [True, False] if os.environ.get("VITRESNAS_CUDA", "1") != "0" else [False]
        for cuda in attempts:
            problem = run_cmake(target, Path(self.build_temp) / f"cuda_{int(cuda)}", cuda)
            if problem is None:
                return
            if cuda:
                print(f"vitresnas: no CUDA build, trying C++ alone:\n{problem}", file=sys.stderr)
        self.warn(
            "vitresnas._C was NOT built, so every op runs on its slower plain-torch reference. "
            "Install a C++17 compiler (for example `apt install g++`) and repeat the install. "
            f"The build said:\n{problem}"
        )

    def copy_extensions_to_source(self) -> None:
        """Editable installs: the module goes beside vitresnas/, or an outdated one goes away."""
        for ext in self.extensions:
            built = Path(self.build_lib) / self.get_ext_filename(ext.name)
            beside = ROOT / self.get_ext_filename(ext.name)
            beside.unlink(missing_ok=True)  # older sources would be worse than no module
            if built.exists():
                shutil.copy2(built, beside)


def run_cmake(target: Path, folder: Path, cuda: bool) -> str | None:
    """Configures and builds into `target`; returns what went wrong, or None."""
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(target.parent),
        "Python_EXECUTABLE": sys.executable,
        "VITRESNAS_CUDA": "ON" if cuda else "OFF",
    }
    if architectures := os.environ.get("VITRESNAS_CUDA_ARCHITECTURES"):
        options["CMAKE_CUDA_ARCHITECTURES"] = architectures
    try:
        import pybind11

        options["pybind11_DIR"] = pybind11.get_cmake_dir()
        generator = []
        if ninja := find_tool("ninja"):
            generator = ["-G", "Ninja"]
            options["CMAKE_MAKE_PROGRAM"] = ninja
        cmake = find_tool("cmake") or "cmake"
        defines = [f"-D{name}={value}" for name, value in options.items()]
        extra = shlex.split(os.environ.get("CMAKE_ARGS", ""))
        folder.mkdir(parents=True, exist_ok=True)
        configure = [cmake, "-S", str(ROOT), "-B", str(folder), *generator, *defines, *extra]
        for command in (configure, [cmake, "--build", str(folder), "--parallel"]):
            done = subprocess.run(command, capture_output=True, text=True)
            print(done.stdout)
            if done.returncode:
                return (done.stdout + done.stderr)[-2000:]
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    if not target.exists():
        return f"CMake finished without writing {target}"
    return None


def find_tool(name: str) -> str | None:
    """A tool on PATH, or beside this interpreter (a virtual environment that is not activated)."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


setup(
    ext_modules=[Extension("vitresnas._C", sources=[], optional=True)],
    cmdclass={"build_ext": CMakeBuild},
)
