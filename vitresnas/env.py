"""`vitresnas env`: this machine, the versions, and for each backend why it cannot run.

python -m vitresnas.env --json
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitresnas.doors import Parser, door, print_json


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas env",
        description="Print this machine, the versions, and which backends run here and why not.",
        example="vitresnas env --json > environment.json",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    if parser.parse_args(argv).json:
        print_json(report())
    else:
        print(as_text(report()))
    return 0


def report() -> dict[str, Any]:
    """{environment, build, backends}; backends[op][name] = {runs, default, reasons}."""
    from vitresnas.latency.environment import describe_environment

    return {
        "environment": describe_environment(),
        "build": build(),
        "backends": backends(),
    }


def build() -> dict[str, Any]:
    """The compiled module: whether it is there, and what it holds."""
    from vitresnas.ops import native

    if reason := native.missing():
        return {"compiled": False, "reason": reason}
    module = native.module()
    found = {"compiled": True, "cuda": module.has_cuda, "architectures": module.cuda_architectures}
    if module.has_cuda:
        gpus = module.cuda_devices()
        found["cuda_runtime"] = gpus["runtime"]
        found["gpus"] = [gpu["name"] for gpu in gpus["devices"]]
        if gpus["code"]:
            found["gpu_message"] = gpus["message"]
    return found


def backends() -> dict[str, Any]:
    """Per op and backend: whether it runs here, whether it is taken by itself, and the reasons."""
    from vitresnas.ops import OPS, dispatch

    device = dispatch.default_device()
    answer: dict[str, Any] = {}
    for op in map(dispatch.find, OPS):
        rows = {}
        offered = {backend.name: backend for backend in op.backends}
        for name in dispatch.BACKENDS:
            why = dispatch.reasons(op, name)
            doubts = () if why else dispatch.doubts(op, offered[name], device)
            rows[name] = {"runs": not why, "default": False, "reasons": [*why, *doubts]}
        first = next(name for name in offered if not rows[name]["reasons"])
        rows[first]["default"] = True
        answer[op.name] = rows
    return answer


def as_text(found: dict[str, Any]) -> str:
    """The report for people: a few lines, and under each backend its reasons."""
    environment = found["environment"]
    names = ("device", "architecture", "driver", "cuda", "platform", "commit")
    lines = [f"{name:<13} {environment[name]}" for name in names if environment[name]]
    lines.append(f"{'cores':<13} {environment['cores']} ({environment['threads']} torch threads)")
    lines += [f"{name:<13} {number}" for name, number in environment["versions"].items()]
    made = found["build"]
    kinds = f"C++ and CUDA for {made['architectures']}" if made.get("cuda") else "C++ only"
    lines.append(f"{'compiled':<13} {kinds if made['compiled'] else 'no: ' + made['reason']}")
    if "gpu_message" in made:
        lines.append(f"{'gpu':<13} none: {made['gpu_message']}")
    for op, rows in found["backends"].items():
        lines += ["", op]
        for name, row in rows.items():
            state = "default" if row["default"] else "by name" if row["runs"] else "no"
            lines.append(f"  {name:<11} {state:<8} {'; '.join(row['reasons'])}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
