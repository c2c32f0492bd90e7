"""How far the table of one condition serves under another one: ranks, choices, and what they cost.

python bench/rank_agreement.py --table latency_table.json

Reads a file with several conditions of one space (say eager and compile) and measures nothing. What
stands for the score, and what the loss is: vitresnas/latency/agreement.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import write_json
from vitresnas.latency import LatencyTable, load_tables
from vitresnas.latency.agreement import Agreement, Choice, agreements
from vitresnas.space import SearchSpace
from vitresnas.space.presets import SPACES, load_space

KIND = "rank_agreement"


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="rank_agreement.py",
        description="Compare the orders and the choices of a file's latency tables.",
        example="python bench/rank_agreement.py --table latency_table.json",
    )
    add = parser.add_argument
    add("--table", type=Path, required=True, help="a file with several conditions of one space")
    add("--space", help=f"{', '.join(SPACES)}, or a space file (the tables' own)")
    add("--draws", type=int, default=1000, help="uniform draws of the space that are ranked (1000)")
    add("--seed", type=int, default=0, help="of the draws (0)")
    add("--out", type=Path, help="write the comparison as JSON")
    add("--json", action="store_true", help="the comparison as JSON on stdout")
    arguments = parser.parse_args(argv)
    if arguments.draws < 2:
        raise InputError(f"--draws is {arguments.draws}: give at least 2 networks to rank")
    tables = load_tables(arguments.table)
    space = load_space(arguments.space or _space_name(tables, arguments.table))
    tables = _of_space(tables, space, arguments.table)
    found = agreements(tables, space, draws=arguments.draws, seed=arguments.seed)
    document = {
        "space": space.name,
        "space_id": space.id,
        "draws": arguments.draws,
        "seed": arguments.seed,
        "agreements": [one.to_json() for one in found],
        "environments": [table.environment for table in tables],
    }
    if arguments.json:
        print_json(document)
    else:
        print("\n\n".join(in_words(one) for one in found))
    if arguments.out:
        write_json(arguments.out, KIND, document)
        say(f"wrote {arguments.out}")
    return 0


def in_words(found: Agreement) -> str:
    differing, costly = len(found.differing), len(found.beyond_error)
    targets = len(found.choices)
    if differing:
        verdict = (
            f"the best network differs at {differing} of {targets} targets, by more than the "
            f"table's mean error ({found.error_percent:.1f} %) at {costly}"
        )
    else:
        verdict = f"the best network is the same at all {targets} targets"
    return "\n".join(
        (
            f"run under   {found.right}",
            f"chosen by   {found.other}",
            f"Kendall tau [95 %] on {found.measured_by_other.networks} held-out networks as "
            f"measured: {found.measured_by_other}; by the right table {found.measured_by_own}, "
            f"by MACs {found.measured_by_macs}",
            f"Kendall tau [95 %] on {found.sample.networks} uniform draws, as both tables predict: "
            f"{found.sample}",
            f"{'target':>12} {'most MACs':>10} {'best':>10} {'by the other table':>28} "
            f"{'its images/s believed':>22}",
            *(_row(choice) for choice in found.choices),
            verdict,
        )
    )


def _row(choice: Choice) -> str:
    off = choice.off_target_percent
    rival = (
        f"{choice.rival.milliseconds:.3f} ms ({choice.longer_percent:+.1f} %)"
        if choice.differs
        else "the same"
    )
    return (
        f"{choice.images_per_second:>8.0f} im/s {choice.best.macs / 1e6:>9.1f}M "
        f"{choice.best.milliseconds:>7.3f} ms {rival:>28} "
        f"{'none fast enough' if off is None else f'{off:+.1f} % of the target':>22}"
    )


def _space_name(tables: Sequence[LatencyTable], path: Path) -> str:
    names = sorted({table.condition.space for table in tables})
    if len(names) > 1 or names[0] not in SPACES:
        raise InputError(
            f"{path} is about {', '.join(names)}: say which space, by name or file, with --space"
        )
    return names[0]


def _of_space(
    tables: Sequence[LatencyTable], space: SearchSpace, path: Path
) -> tuple[LatencyTable, ...]:
    found = tuple(table for table in tables if table.condition.space_id == space.id)
    if len(found) >= 2:
        return found
    condition = (found or tuple(tables))[0].condition
    raise InputError(
        f"{path} holds {len(found)} conditions of space {space.name} ({space.id}) and two are "
        f"needed: add one with `{condition.command(str(path), space.name)}` and another --runtime, "
        "--dtype or --batch-size"
    )


if __name__ == "__main__":
    sys.exit(main())
