"""Measure what a space's networks cost on this device.

python bench/latency_table.py --space digits --out latency_table.json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.latency.compared import names_asked
from vitresnas.latency.condition import DTYPES
from vitresnas.latency.request import Request
from vitresnas.latency.runtime import runtime_name, runtime_names
from vitresnas.latency.shipped import find_tables
from vitresnas.latency.table import LatencyTable
from vitresnas.latency.validation import Validation
from vitresnas.space.presets import SPACES, load_space


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    space = load_space(arguments.space)
    request = Request(
        device=arguments.device,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        runtime=arguments.runtime,
        threads=arguments.threads,
        seconds=arguments.seconds,
        seed_from=arguments.seed_from,
        measurements=arguments.measurements,
        fresh=arguments.fresh,
        compare=names_asked(arguments.compare),
    )
    from vitresnas.latency.build import build_table  # imports torch

    table = build_table(space, request, arguments.out)
    if arguments.json:
        print_json(summary(table, arguments.out))
    else:
        print(_in_words(table))
        if table.transfer and arguments.seed_from:
            from vitresnas.latency.transfer import beside_full

            if found := beside_full(table, find_tables(arguments.seed_from).tables):
                print(found)
    say(f"wrote {arguments.out}")
    return 0


def summary(table: LatencyTable, out: Path) -> dict[str, object]:
    """The condition and the published errors; the table itself is in the file."""
    document = table.to_json()
    for role in ("validation", "validation_uniform", "calibration_networks"):
        if document[role]:
            document[role].pop("pairs")
    if document["drift"]:
        document["drift"].pop("readings")
    for model in document["compared"]:
        model.pop("samples_milliseconds")
    document["telemetry"] = None
    return {**document, "entries": len(table.entries), "out": str(out)}


def _in_words(table: LatencyTable) -> str:
    circumstances, calibration = table.circumstances, table.calibration
    ends = sorted(pair.measured for pair in table.validation.pairs)
    terms = " + ".join(f"{weight:.3f} x {name}" for name, weight in calibration.coefficients)
    return "\n".join(
        (
            f"{len(table.entries)} operations, {table.condition}",
            f"time of a network = {terms} (model {calibration.model})",
            f"held-out, spaced ({ends[0]:.2f} to {ends[-1]:.2f} ms): {_errors(table.validation)}",
            f"held-out, uniform draws: {_errors(table.validation_uniform)}",
            *(f"beside them, {model}" for model in table.compared),
            *(_tail(circumstances.get("tail"))),
            *(str(p) for p in (table.transfer, table.memory, table.energy, table.drift) if p),
            f"measured for {circumstances['seconds']} s with {circumstances['priority']} priority; "
            f"other processes kept {circumstances['other_processes_cpus']} CPUs busy",
        )
    )


def _tail(tail: dict[str, object] | None) -> tuple[str, ...]:
    if not tail:
        return ()
    return (f"at batch 1 one call in a hundred takes {tail['p99_over_median']:.2f}x the median",)


def _errors(validation: Validation) -> str:
    return (
        f"{len(validation.pairs)} networks, "
        f"error {validation.mean_absolute_percentage_error:.1f} % mean, "
        f"{validation.worst_percent:.1f} % worst, Kendall tau {validation.kendall_tau:.3f}"
    )


def _parser() -> Parser:
    parser = Parser(
        prog="vitresnas latency-table",
        description="Time every distinct operation of a space on this device, calibrate on whole "
        "networks, publish the error on held-out ones. If interrupted, the same command resumes.",
        example="python bench/latency_table.py --space digits --batch-size 32",
    )
    add = parser.add_argument
    add("--space", default="digits", help=f"{', '.join(SPACES)}, or a space file (digits)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N (auto)")
    add(
        "--batch-size",
        type=int,
        help="images per forward pass (CPU: 32 up to 64 pixels, 8 above; GPU: 128)",
    )
    add("--dtype", default="fp32", choices=DTYPES, help="weights and activations (fp32)")
    runtimes = ", ".join(runtime_names())
    add("--runtime", default="eager", type=runtime_name, help=f"{runtimes} (eager)")
    add("--threads", type=int, help="CPU threads of torch (torch's own choice)")
    add("--seconds", type=float, default=30.0, help="about how long to measure (30)")
    add(
        "--seed-from",
        metavar="FILE|DEVICE",
        help="estimate this condition from another one, in a file or of a device whose table "
        "comes with vitresnas, and a few measurements",
    )
    add(
        "--measurements",
        type=int,
        default=30,
        help="operations and whole networks that a transfer is fitted to (30); others are held out",
    )
    add(
        "--compare",
        action="append",
        default=[],
        metavar="MODEL",
        help="time a timm model in the same rounds, as in deit_small_patch16_224, at its own "
        "image size or as NAME@SIZE; separate several by commas, or repeat the option",
    )
    add("--fresh", action="store_true", help="measure again what --out already holds")
    add(
        "--out",
        type=Path,
        default=Path("latency_table.json"),
        help="file to write; its other conditions are kept (latency_table.json)",
    )
    add("--json", action="store_true", help="the summary as one JSON document on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
