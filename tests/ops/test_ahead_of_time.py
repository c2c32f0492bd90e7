"""Every GPU kernel compiles for an H100 without a GPU, keeps to its registers, loads in vectors.

In a process of its own: in this one Triton may be interpreting.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vitresnas.files import read_json
from vitresnas.ops import OPS, ahead_of_time, dispatch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "kernels.py"
COMMITTED = sorted((ROOT / "bench" / "results" / "ahead-of-time").glob("*.json"))
FIELDS = {
    "kernel", "op", "direction", "language", "target", "variant", "registers", "stack_bytes",
    "spill_bytes", "spill_instructions", "shared_bytes", "tensor_core_instructions",
    "async_copy_instructions", "wide_load_instructions", "versions",
}  # fmt: skip
REGISTERS = 168  # a masked_layer_norm kernel: three blocks of four warps per multiprocessor
# What the fastest variant of a kernel in bf16 must use.
NEEDED = {
    "variable_linear": ("tensor_core_instructions", "async_copy_instructions"),
    "variable_attention": ("tensor_core_instructions", "async_copy_instructions"),
    "variable_patch_embedding": ("tensor_core_instructions",),
    "variable_reduction": ("tensor_core_instructions",),
}

needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="nvcc is not on PATH: install the CUDA toolkit"
)


def compiled(language):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: run `pip install triton`")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), "--aot", "sm_90", "--language", language, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


@pytest.fixture(scope="module")
def rows():
    return compiled("triton")


def test_every_op_with_triton_kernels_is_compiled_both_ways_in_both_dtypes(rows):
    expected = {
        (op, direction, dtype)
        for op in OPS
        if any(backend.name == "triton" for backend in dispatch.find(op).backends)
        for direction in ("forward", "backward")
        for dtype in ("fp32", "bf16")
    }
    assert {(r["op"], r["direction"], r["variant"]["dtype"]) for r in rows} == expected


@needs_nvcc
@pytest.mark.slow
def test_every_op_with_cuda_kernels_is_compiled_both_ways_without_spills():
    rows = compiled("cuda")
    with_cuda = {op for op in OPS if any(b.name == "cuda" for b in dispatch.find(op).backends)}
    found = {(row["op"], row["direction"]) for row in rows}
    assert found >= {(op, way) for op in with_cuda for way in ("forward", "backward")}
    test_nothing_spills_and_everything_is_told(rows)
    test_matrix_products_in_bf16_run_on_tensor_cores(rows)


def test_nothing_spills_and_everything_is_told(rows):
    for row in rows:
        assert row.keys() == FIELDS
        assert ahead_of_time.complaint(row) is None, row
        assert row["spill_bytes"] == 0 and row["spill_instructions"] == 0, row
        assert row["registers"] >= 16, row


def test_rows_are_normalised_at_full_occupancy_sixteen_bytes_at_a_time(rows):
    # A load masked by the exact, unaligned width would silently fall back to single elements.
    for row in rows:
        if row["op"] == "masked_layer_norm":
            assert row["wide_load_instructions"] > 0 and row["registers"] <= REGISTERS, row


def test_matrix_products_in_bf16_run_on_tensor_cores(rows):
    for op in NEEDED.keys() & {row["op"] for row in rows}:
        for direction in ("forward", "backward"):
            found = [
                row
                for row in rows
                if (row["op"], row["direction"]) == (op, direction)
                and row["variant"].get("dtype", "bf16") == "bf16"
            ]
            for kind in NEEDED[op]:
                assert any(row[kind] for row in found), f"{op} {direction}: no {kind}"


SOURCE = """
template <typename T, int N>
__global__ void scale_backward(const T *x, T *y, int n) {
    __shared__ T kept[64];
    kept[threadIdx.x % 64] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = kept[(threadIdx.x + n) % 64] * T(N);
}
template __global__ void scale_backward<float, 3>(const float *, float *, int);

__global__ void __launch_bounds__(1024, 2) hoard(const float *x, float *y) {
    float kept[96];  // 1024 threads twice leave 32 registers
#pragma unroll
    for (int i = 0; i < 96; ++i) kept[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 96; ++i) y[i * 1024 + threadIdx.x] = kept[95 - i] * kept[i];
}
"""


@needs_nvcc
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="cuobjdump is Triton's")
@pytest.mark.parametrize("target", ahead_of_time.TARGETS)
def test_a_cuda_kernel_that_spills_is_refused(tmp_path, target):
    source = tmp_path / "scale.cu"
    source.write_text(SOURCE)
    found = {row["kernel"]: row for row in ahead_of_time.cuda_rows(target, [source])}
    scale, hoard = found["scale_backward"], found["hoard"]
    assert scale.keys() == hoard.keys() == FIELDS
    assert (scale["op"], scale["direction"], scale["target"]) == ("scale", "backward", target)
    assert scale["variant"] == {"template": "float, 3"} and scale["shared_bytes"] == 256
    assert ahead_of_time.complaint(scale) is None
    assert hoard["spill_bytes"] > 0 and hoard["spill_instructions"] > 0
    assert "spills" in str(ahead_of_time.complaint(hoard))


def test_shared_memory_beyond_a_block_is_refused():
    row = {"spill_bytes": 0, "spill_instructions": 0, "registers": 64, "shared_bytes": 200_000}
    assert ahead_of_time.complaint({**row, "target": "sm_90"}) is None
    assert "200000 bytes of shared memory" in str(
        ahead_of_time.complaint({**row, "target": "sm_80"})
    )


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_table_holds_no_refused_kernel(path):
    for row in read_json(path, "bench")["rows"]:
        assert row.keys() == FIELDS
        assert ahead_of_time.complaint(row) is None, row
