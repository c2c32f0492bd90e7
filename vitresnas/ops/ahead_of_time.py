"""Compile every GPU kernel on a machine without a GPU, and look inside.

The Triton interpreter accepts code that the compiler rejects, so a kernel that passes its tests on
a CPU has not been compiled at all until it went through here. A kernel file says what to compile:

    variants() -> iterable of (kernel, direction, signature, constants, options)

signature: the type of each argument as Triton writes it ("*bf16", "i32", "fp32"); "i32:16" promises
a multiple of 16, as pointers always do. constants: the constexpr arguments. options: a number of
warps, or a dictionary such as {"num_warps": 8, "num_stages": 3}.
The CUDA sources are those of CMakeLists.txt. It must run without TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitresnas.errors import InputError
from vitresnas.ops import OPS

ROOT = Path(__file__).resolve().parents[2]
# What one block may use of a multiprocessor's memory; a kernel that asks for more cannot start.
SHARED_BYTES = {"sm_80": 166912, "sm_90": 232448}
TARGETS = tuple(SHARED_BYTES)
COUNTED = {
    "spill_instructions": r"\b(?:STL|LDL)\b",
    "tensor_core_instructions": r"\b(?:HMMA|HGMMA)\b",
    "async_copy_instructions": r"\b(?:LDGSTS|UTMALDG|UBLKCP)\b",
    "wide_load_instructions": r"\bLDG\S*\.128\b",
}
Row = dict[str, Any]


def complaint(row: Row) -> str | None:
    """Why a kernel may not be shipped; None where nothing is wrong."""
    if row["spill_bytes"] or row["spill_instructions"]:
        return f"spills {row['spill_bytes']} bytes of its {row['registers']} registers"
    if row["shared_bytes"] > (most := SHARED_BYTES[row["target"]]):
        return f"asks for {row['shared_bytes']} bytes of shared memory, a block has {most}"
    return None


def triton_rows(target: str, ops: tuple[str, ...] = OPS) -> Iterator[Row]:
    """One row per compiled variant of every op that has Triton kernels."""
    version = {"triton": importlib.import_module("triton").__version__}
    for op in ops:
        if importlib.util.find_spec(f"vitresnas.kernels.{op}") is None:
            continue
        module = importlib.import_module(f"vitresnas.kernels.{op}")
        for kernel, direction, signature, constants, options in module.variants():
            options = options if isinstance(options, dict) else {"num_warps": options}
            compiled = compile_variant(kernel, signature, constants, options, target)
            ((_, found),) = inspect(compiled.asm["cubin"])
            first = next(t for t in signature.values() if t.startswith("*"))
            yield {
                "op": op,
                "direction": direction,
                "kernel": kernel.__name__,
                "language": "triton",
                "target": target,
                "variant": {**constants, **options, "dtype": first.lstrip("*")},
                **found,
                # Triton keeps no arrays on the stack: what is there was spilled.
                "spill_bytes": found["stack_bytes"],
                "shared_bytes": compiled.metadata.shared,
                "versions": version,
            }


def compile_variant(
    kernel: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    options: Mapping[str, Any],
    target: str,
) -> Any:
    """Triton's compiled kernel for `target`, which need not be here."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, written in enumerate(types.values())
        if written.startswith("*") or written.endswith(":16")
    }
    types = {name: written.removesuffix(":16") for name, written in types.items()}
    source = ASTSource(kernel, types, constexprs=dict(constants), attrs=aligned)
    capability = int(target.removeprefix("sm_"))
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(options))


def cuda_rows(target: str, sources: Sequence[Path] | None = None) -> Iterator[Row]:
    """One row per kernel of every CUDA source (CMakeLists.txt's); nvcc must be on PATH."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise InputError(
            "nvcc is not on PATH: install the CUDA toolkit to compile the CUDA kernels"
        )
    release = re.search(r"V(\d[\d.]*)", run(nvcc, "--version")[0])
    # As in CMakeLists.txt: 90a, not 90, for wgmma and TMA.
    number = target.removeprefix("sm_") + ("a" if target == "sm_90" else "")
    for source in cuda_sources() if sources is None else sources:
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder) / "kernels.cubin"
            _, log = run(
                nvcc, "-O3", "-DNDEBUG", "-std=c++17", "-I", str(ROOT / "csrc"), "-cubin",
                f"-gencode=arch=compute_{number},code=sm_{number}",
                "-Xptxas=-v", "--Werror=cross-execution-space-call",
                "-o", str(cubin), str(source),
            )  # fmt: skip
            printed = ptxas_says(log)
            for mangled, found in inspect(cubin.read_bytes()) if printed else ():
                name, template = readable(mangled)
                yield {
                    "op": source.stem,
                    "direction": "backward" if "backward" in name else "forward",
                    "kernel": name,
                    "language": "cuda",
                    "target": target,
                    "variant": {"template": template},
                    **found,
                    **printed[mangled],
                    "versions": {"nvcc": release[1] if release else ""},
                }


def cuda_sources() -> list[Path]:
    """The CUDA sources that CMakeLists.txt lists."""
    listed = re.search(r"set\(CUDA_SOURCES\s+([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
    return [ROOT / name for name in (listed[1].split() if listed else ())]


def ptxas_says(log: str) -> dict[str, dict[str, int]]:
    """Stack, spills and static shared memory by mangled name, from what `ptxas -v` prints."""
    found = {}
    for entry in re.split(r"Compiling entry function ", log)[1:]:
        name = re.match(r"'(\w+)'", entry)
        stack = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", entry
        )
        if not name or not stack:
            raise RuntimeError(f"ptxas printed something that cannot be read:\n{entry[:500]}")
        shared = re.search(r"(\d+) bytes smem", entry)
        found[name[1]] = {
            "stack_bytes": int(stack[1]),
            "spill_bytes": int(stack[2]) + int(stack[3]),
            "shared_bytes": int(shared[1]) if shared else 0,
        }
    return found


def readable(mangled: str) -> tuple[str, str]:
    """A kernel's name without namespaces and arguments, and its template arguments."""
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    name = run(tool, mangled)[0].strip() if tool else mangled
    name = name.removeprefix("void ").replace("(anonymous namespace)::", "")
    name = re.sub(r"\((?:int|bool|unsigned int|long)\)", "", name)  # <(int)64> is <64>
    head, opened, rest = name.partition("<")
    template = rest[: rest.rfind(">")] if opened else ""
    return head.partition("(")[0].rpartition("::")[2], template


def inspect(code: bytes) -> list[tuple[str, dict[str, int]]]:
    """(name, registers, stack and kinds of instructions) of each kernel in a cubin."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code)
        usage, _ = run(cuobjdump(), "-res-usage", str(path))
        assembly, _ = run(cuobjdump(), "-sass", str(path))
    instructions = {
        text.split(maxsplit=1)[0]: text for text in re.split(r"Function : ", assembly)[1:]
    }
    found = []
    for name, line in re.findall(r"Function (\S+):\s*\n\s*(REG:.*)", usage):
        numbers = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", line))
        counts = {
            kind: len(re.findall(pattern, instructions[name])) for kind, pattern in COUNTED.items()
        }
        stack = int(numbers["STACK"]) + int(numbers["LOCAL"])
        found.append((name, {"registers": int(numbers["REG"]), "stack_bytes": stack, **counts}))
    if not found or "EXIT" not in assembly:
        raise RuntimeError(f"cuobjdump printed nothing that can be read:\n{usage[:500]}")
    return found


def cuobjdump() -> str:
    """The toolkit's, or the one in Triton's wheel."""
    if tool := shutil.which("cuobjdump"):
        return tool
    triton = importlib.util.find_spec("triton")
    if triton is None or triton.origin is None:
        raise InputError("there is no cuobjdump: install Triton, whose wheel brings one")
    return str(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump")


def run(*command: str) -> tuple[str, str]:
    """What a tool prints on stdout and stderr; InputError with its words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout)[-1500:]
        raise InputError(f"{Path(command[0]).name} failed on {command[-1]}: {said}")
    return done.stdout, done.stderr
