"""From a folder of images to a network that is fast enough here, in the time given.

vitresnas quickstart --data photos --throughput-target 2000 --hours 4
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.latency.runtime import runtime_name, runtime_names
from vitresnas.quickstart.request import OWN_IMAGES_UNREADABLE, Request
from vitresnas.search.check import exit_code


@door
def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    # Imports of torch wait until the command line has been understood.
    from vitresnas.quickstart.plan import find_plan
    from vitresnas.quickstart.result import RESULT
    from vitresnas.quickstart.run import run

    request = Request(
        data=arguments.data,
        target=arguments.throughput_target,
        hours=arguments.hours,
        space=arguments.space,
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
        runtime=arguments.runtime,
        device=arguments.device,
        seed=arguments.seed,
        unreadable_share=arguments.unreadable_share,
    )
    plan = find_plan(request, arguments.out)
    lines = plan.lines(arguments.out)
    if arguments.plan_only:
        print_json(plan.to_json()) if arguments.json else print("\n".join(lines))
        return 0
    if not (arguments.out / RESULT).exists():
        say("\n".join(lines))
    result = run(plan, arguments.out)
    if arguments.json:
        print_json(result.to_json())
    else:
        print("\n".join(result.lines()))
    return exit_code(result.verdict)


def _parser() -> Parser:
    parser = Parser(
        prog="vitresnas quickstart",
        description="Look at the images, measure this device, plan super-network, search and "
        "retraining for the time given, print the plan and run it. It asks no questions; if "
        "interrupted or killed, the same command resumes.",
        example="vitresnas quickstart --data photos --throughput-target 2x --hours 4 --out mine",
    )
    add = parser.add_argument
    add("--data", default="digits", help="digits, or a folder of images, Parquet files or shards")
    add(
        "--throughput-target",
        required=True,
        metavar="N|Nx",
        help="images per second, as in 2000, or times the space's largest network, as in 2x",
    )
    add("--hours", type=float, default=1.0, help="for everything together (1); 0.1 is six minutes")
    add("--space", help="a space by name or file; without it the plan derives one")
    add("--image-size", type=int, help="side in pixels; without it the plan chooses")
    add("--batch-size", type=int, help="images per batch, for timing (CPU: 32 or 8; GPU: 128)")
    add("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="for timing (fp32)")
    add("--runtime", type=runtime_name, default="eager", help=", ".join(runtime_names()))
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--seed", type=int, default=0, help="seed of every random choice (0)")
    add(
        "--unreadable-share",
        type=float,
        default=OWN_IMAGES_UNREADABLE,
        help=f"share of a split that may be left out as unreadable ({OWN_IMAGES_UNREADABLE:g})",
    )
    add("--out", type=Path, default=Path("runs/quickstart"), help="folder (runs/quickstart)")
    add("--plan-only", action="store_true", help="only print and save the plan")
    add("--json", action="store_true", help="plan or result as one JSON document on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
