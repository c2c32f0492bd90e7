"""Compile every Triton kernel for an H100 or H200 on a machine without a GPU, and look inside.

    python bench/ahead_of_time.py                  one JSON row per variant on stdout
    python bench/ahead_of_time.py --out FILE       the same as a bench file

It must run without TRITON_INTERPRET. The interpreter accepts code that the compiler rejects, so a
kernel that passes its tests on a CPU has not been compiled at all until it went through here.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import write_json
from vitresnas.latency.environment import describe_environment
from vitresnas.ops import OPS

CAPABILITY = 90


def rows(ops: tuple[str, ...] = OPS) -> Iterator[dict[str, Any]]:
    """One row per compiled variant of every op that has Triton kernels."""
    for op in ops:
        module = importlib.import_module(f"vitresnas.kernels.{op}")
        for kernel, direction, signature, constants, warps in module.variants():
            yield {
                "op": op,
                "direction": direction,
                "kernel": kernel.__name__,
                "language": "triton",
                "target": f"sm_{CAPABILITY}",
                "variant": {**constants, "warps": warps, "dtype": signature["x_ptr"][1:]},
                **inspect(compile_variant(kernel, signature, constants, warps)),
            }


def compile_variant(kernel: Any, signature: dict[str, str], constants: Any, warps: int) -> bytes:
    """The machine code of one variant; pointers and the row stride are multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if name.endswith("_ptr") or name == "channels"
    }
    types = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", CAPABILITY, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps})
    code: bytes = compiled.asm["cubin"]
    return code


def inspect(code: bytes) -> dict[str, int]:
    """Registers, spills and kinds of instructions of a cubin, by the tool in Triton's wheel."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code)

        def dump(what: str) -> str:
            done = subprocess.run([tool, what, path], capture_output=True, text=True, check=True)
            return done.stdout

        usage, instructions = dump("-res-usage"), dump("-sass")
    found = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage))
    if not found or "EXIT" not in instructions:
        raise RuntimeError(f"cuobjdump printed nothing that can be read:\n{usage[:500]}")
    return {
        "registers": int(found["REG"]),
        "spill_bytes": int(found["STACK"]) + int(found["LOCAL"]),
        "spill_instructions": len(re.findall(r"\b(?:STL|LDL)\b", instructions)),
        "tensor_core_instructions": len(re.findall(r"\bHG?MMA\b", instructions)),
        "async_copy_instructions": len(re.findall(r"\b(?:LDGSTS|UTMALDG)\b", instructions)),
        "wide_load_instructions": len(re.findall(r"\bLDG\S*\.128\b", instructions)),
    }


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="bench/ahead_of_time.py",
        description="Registers, spills and instructions of every Triton kernel, without a GPU.",
        example="python bench/ahead_of_time.py --out ahead_of_time.json",
    )
    parser.add_argument("--out", metavar="FILE", help="write a bench file instead of printing")
    arguments = parser.parse_args(argv)
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise InputError("TRITON_INTERPRET=1 compiles nothing: unset it")
    found = list(rows())
    if arguments.out:
        payload = {"environment": describe_environment(), "rows": found}
        write_json(arguments.out, "bench", payload)
        say(f"wrote {len(found)} rows to {arguments.out}")
    else:
        print_json({"rows": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
