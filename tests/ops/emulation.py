"""Builds csrc/emulated with g++ and calls it: the CUDA kernels' own sources on emulated warps.

csrc/emulated/machine.h says what the emulator objects to on the way (races, lanes that part,
accesses outside the tensors, bytes written twice, ...): an EmulationError then carries its words.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CSRC = Path(__file__).parents[2] / "csrc"


class EmulationError(AssertionError):
    """A rule that the emulated kernel broke."""


def build(source: str, folder: Path, *options: str, csrc: Path = CSRC) -> ctypes.CDLL:
    """A library of the test's own, compiled from csrc/emulated/`source`."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++: install it, for example `apt install g++`")
    library = folder / Path(source).with_suffix(".so").name
    done = subprocess.run(
        ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
         *options, "-I", csrc, csrc / "emulated" / source, "-o", library],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


class Attention:
    """The functions of csrc/emulated/variable_attention.cpp on tensors."""

    def __init__(self, library: ctypes.CDLL, seed: int = 0) -> None:
        self.library = library
        library.emulated_message.restype = ctypes.c_char_p
        library.emulated_seed(ctypes.c_uint32(seed))

    def call(self, name: str, dtype: int, *arguments: int, scale: float) -> int:
        wide = (ctypes.c_int64(argument) for argument in arguments)  # addresses and sizes alike
        code: int = getattr(self.library, name)(dtype, *wide, ctypes.c_double(scale))
        if code == 900:
            raise EmulationError(self.library.emulated_message().decode())
        return code

    # As vitresnas._C has them, the stream last.
    def variable_attention_cuda_prepare(self) -> int:
        return 0

    def variable_attention_cuda_forward(self, dtype: int, *arguments: Any) -> int:
        return self.call("emulated_forward", dtype, *arguments[:-2], scale=arguments[-2])

    def variable_attention_cuda_backward(self, dtype: int, *arguments: Any) -> int:
        return self.call("emulated_backward", dtype, *arguments[:-2], scale=arguments[-2])

    def counters(self) -> tuple[int, ...]:
        """Of the last run: phases of matrix loads and stores, their wavefronts, products."""
        counts = [ctypes.c_int64() for _ in range(3)]
        self.library.emulated_counters(*(ctypes.byref(count) for count in counts))
        return tuple(count.value for count in counts)
