"""The CUDA attention kernels as compiled for an H100: registers, spills, kinds of instructions."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
import torch

from vitresnas.ops import ahead_of_time
from vitresnas.ops import variable_attention_cuda as cuda

SOURCE = ahead_of_time.ROOT / "csrc" / "cuda" / "variable_attention.cu"
# Most registers that still let the planned number of blocks share a multiprocessor: each of its
# four parts has 16384 for its warps, handed out to a warp in eights per lane.
MOST = {
    ("forward", "257, 32"): 168,  # 2 blocks of 6 warps
    ("forward", "65, 48"): 96,  # 4 blocks of 5 warps
    ("forward", "17, 64"): 80,  # 6 blocks of 4 warps
    ("backward", "257, 32"): 96,  # 1 block of 17 warps
    ("backward", "65, 48"): 128,  # 3 blocks of 5 warps
    ("backward", "17, 64"): 168,  # 3 blocks of 4 warps
}


@pytest.fixture(scope="module")
def rows():
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH: install the CUDA toolkit")
    if shutil.which("cuobjdump") is None and importlib.util.find_spec("triton") is None:
        pytest.skip("there is no cuobjdump: install Triton, whose wheel brings one")
    return list(ahead_of_time.cuda_rows("sm_90", [SOURCE]))


def test_every_size_and_dtype_is_compiled_both_ways(rows):
    sizes = {f"{tokens}, {d}" for tokens, head_dims in cuda.SIZES.items() for d in head_dims}
    found = {(row["direction"], row["variant"]["template"]) for row in rows}
    assert found == {
        (direction, f"{size}, gpu::{element}")
        for direction in ("forward", "backward")
        for size in sizes
        for element in ("BFloat16", "Float16")
    }


def test_nothing_is_kept_on_a_stack(rows):
    for row in rows:
        assert row["stack_bytes"] == row["spill_bytes"] == row["spill_instructions"] == 0, row


def test_products_run_on_tensor_cores_and_copies_are_asynchronous(rows):
    for row in rows:
        assert row["tensor_core_instructions"] > 0 and row["async_copy_instructions"] > 0, row


def test_registers_allow_the_planned_blocks(rows):
    for row in rows:
        size = row["variant"]["template"].rpartition(", ")[0]
        assert row["registers"] <= MOST.get((row["direction"], size), 255), row


def test_what_is_not_compiled_is_refused_in_one_sentence():
    def refused(tokens, head_dim, dtype=torch.bfloat16):
        return cuda.refuses((torch.empty(1, tokens, 3, 1, head_dim, dtype=dtype),))

    assert refused(257, 32) == refused(65, 48) == refused(17, 64, torch.float16) == ()
    assert "use bfloat16 or float16" in refused(257, 32, torch.float32)[0]
    assert "qkv has 18 with D of 64" in refused(18, 64)[0]
    assert "qkv has 257 with D of 64" in refused(257, 64)[0]
