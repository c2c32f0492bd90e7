"""Find the best network of a space that reaches a throughput on this machine, and prove it.

python -m vitresnas.search --throughput-target 2x

Under `torchrun --nproc-per-node N -m vitresnas.search ...` N processes score candidates in
parallel; the result is the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitresnas.arguments import WholeNumber, percent, positive
from vitresnas.doors import Parser, Rank, door, print_json, rows_of
from vitresnas.errors import InputError
from vitresnas.latency.compared import names_asked
from vitresnas.latency.runtime import runtime_name, runtime_names
from vitresnas.latency.shipped import shipped_devices
from vitresnas.search.check import exit_code
from vitresnas.search.constraint import COSTS, Constraint, Target, parse_constraint
from vitresnas.search.objectives import OBJECTIVES, parse_objectives
from vitresnas.search.strategies import LEAST_CANDIDATES, STRATEGIES
from vitresnas.search.summary import summary

if TYPE_CHECKING:
    from vitresnas.search.workers import Workers

_PASSED_ON = (
    *("space", "data", "supernet", "latency_table", "batch_size", "dtype", "runtime", "threads"),
    *("device", "strategy", "candidates", "seed", "out", "log", "accept_foreign_table"),
    *("proof_seconds", "margin"),
)


def _parser() -> Parser:
    parser = Parser(
        prog="vitresnas search",
        description=__doc__,
        example="python -m vitresnas.search --throughput-target 2x --out runs/twice",
    )
    add = parser.add_argument
    add(
        "--throughput-target",
        metavar="N|Nx",
        help="images per second, as in 2000, or times the space's largest network, as in 2x",
    )
    add("--space", default="digits", help="a space by name or file (default digits)")
    add("--data", help="digits (default), or a folder of images, Parquet files or shards")
    add("--supernet", type=Path, help="a trained super-network; without it one is trained")
    add(
        "--latency-table",
        metavar="FILE|DEVICE",
        help="a measured table, or a device whose table comes with vitresnas "
        f"({', '.join(shipped_devices())}); without it this machine is measured",
    )
    add("--batch-size", type=WholeNumber(1), help="images per batch, for timing")
    add("--dtype", choices=("fp32", "bf16", "fp16"), help="number type, for timing")
    add("--runtime", type=runtime_name, help=", ".join(runtime_names()))
    add("--threads", type=WholeNumber(1), help="CPU threads, for timing")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--strategy", choices=tuple(STRATEGIES), default="evolution", help="default evolution")
    add(
        "--candidates",
        type=WholeNumber(LEAST_CANDIDATES),
        metavar="N",
        help="about how many networks the strategy scores (default: as suits the space)",
    )
    add(
        "--objectives",
        metavar="NAME,NAME",
        help=f"what nsga2 trades off (default score,throughput); names: {', '.join(OBJECTIVES)}",
    )
    add(
        "--constraint",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a further bound, as in macs=20M; may be repeated; names: {', '.join(COSTS)}",
    )
    add(
        "--compare",
        action="append",
        default=[],
        metavar="MODEL",
        help="time a timm model beside the finalists, as in deit_small_patch16_224, at its own "
        "image size or as NAME@SIZE; separate several by commas, or repeat the option",
    )
    add("--seed", type=WholeNumber(0), default=0, help="seed of every random choice (default 0)")
    add("--out", type=Path, default=Path("runs/search"), help="folder (default runs/search)")
    add("--log", type=Path, help="evaluation log to share with other searches (default in --out)")
    add(
        "--accept-foreign-table",
        action="store_true",
        help='accept a table file measured on another device; the verdict is "unproven"',
    )
    add(
        "--proof-seconds",
        type=positive,
        default=15.0,
        metavar="S",
        help="how long each round of finalists is timed (default 15); longer narrows the intervals",
    )
    add(
        "--margin",
        type=percent,
        default=0.0,
        metavar="P",
        help="percent by which predictions should exceed the throughput target, as in 2, so that "
        "later measurements agree with the proof (default 0); the verdict is still the target's",
    )
    add(
        "--finetune-top",
        type=WholeNumber(0),
        default=0,
        metavar="K",
        help="train the K best finalists a little further before the final choice (default 0)",
    )
    add("--finetune-epochs", type=WholeNumber(1), default=3, help="how many epochs (default 3)")
    add("--json", action="store_true", help="print the result as one JSON document on stdout")
    return parser


@door
def main(argv: Sequence[str] | None = None) -> int:
    rank = Rank.here()
    if rank.size == 1:
        return _search(argv, None)
    from vitresnas.search.serve import serve_search
    from vitresnas.search.workers import joined

    if not rank.leads:
        return serve_search()
    with joined() as workers:
        return _search(argv, workers)


def _search(argv: Sequence[str] | None, workers: Workers | None) -> int:
    arguments = _parser().parse_args(argv)
    target, constraints = _bounds(arguments.throughput_target, arguments.constraint)
    from vitresnas.search.folder import files_written
    from vitresnas.search.job import FineTuning, SearchRequest
    from vitresnas.search.run import run
    from vitresnas.training_for_search import finalist_tuning, supernet_training

    request = SearchRequest(
        target=target,
        constraints=constraints,
        objectives=() if arguments.objectives is None else parse_objectives(arguments.objectives),
        compare=names_asked(arguments.compare),
        finetune=FineTuning(arguments.finetune_top, arguments.finetune_epochs),
        **{name: getattr(arguments, name) for name in _PASSED_ON},
    )
    tune = finalist_tuning(request) if request.finetune.top else None
    result = run(request, supernet_training, workers, tune)
    files = files_written(request.out)
    if arguments.json:
        print_json({**result.to_json(), "files": files})
    else:
        print("\n".join([summary(result), *rows_of(files.items())]))
    return exit_code(result.verdict)


def _bounds(
    target: str | None, constraints: Sequence[str]
) -> tuple[Target, tuple[Constraint, ...]]:
    """The throughput, however it was given, and the other bounds. Raises InputError."""
    speeds = [text.partition("=")[2] for text in constraints if _names_throughput(text)]
    speeds += [] if target is None else [target]
    if len(speeds) != 1:
        raise InputError(
            f"throughput is bounded {len(speeds)} times: give one --throughput-target, as in 2000 "
            "or 2x, or one --constraint throughput=2000"
        )
    others = [text for text in constraints if not _names_throughput(text)]
    return Target.parse(speeds[0]), tuple(map(parse_constraint, others))


def _names_throughput(text: str) -> bool:
    return text.partition("=")[0].strip() == "throughput"


if __name__ == "__main__":
    sys.exit(main())
