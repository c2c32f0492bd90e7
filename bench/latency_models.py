"""Compare corrections of the sum of pieces on the whole networks of a measured table.

python bench/latency_models.py --table bench/results/cpu-xeon-2core/latency_table_digits.json

Leave-one-out error of the plain sum, of every model that a table may use, and of two learned
residuals. What is chosen here by all networks of a table, the table chose by its calibration ones.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.files import write_json
from vitresnas.latency import LatencyTable, load_tables
from vitresnas.latency.comparison import Comparison, compare

KIND = "latency_models"


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="latency_models.py",
        description="Compare corrections of the sum of pieces on a table's whole networks.",
        example="python bench/latency_models.py --table latency_table.json",
    )
    parser.add_argument("--table", type=Path, required=True, help="a file of latency tables")
    parser.add_argument("--out", type=Path, help="write the comparison as JSON")
    parser.add_argument("--json", action="store_true", help="the comparison as JSON on stdout")
    arguments = parser.parse_args(argv)
    compared = [(table, compare(table)) for table in load_tables(arguments.table)]
    document = {
        "conditions": [
            {
                **table.condition.to_json(),
                **comparison.to_json(),
                "environment": table.environment,
            }
            for table, comparison in compared
        ]
    }
    if arguments.json:
        print_json(document)
    else:
        print("\n\n".join(in_words(*pair) for pair in compared))
    if arguments.out:
        write_json(arguments.out, KIND, document)
        say(f"wrote {arguments.out}")
    return 0


def in_words(table: LatencyTable, comparison: Comparison) -> str:
    rows = [
        f"{score.model:<18} {score.mean_percent:>7.2f} % {score.worst_percent:>7.2f} % "
        f"{score.kendall_tau:>7.3f}"
        for score in comparison.scores
    ]
    return "\n".join(
        (
            f"{table.condition}: {comparison.networks} whole networks, leave-one-out",
            f"{'model':<18} {'mean':>9} {'worst':>9} {'tau':>7}",
            *rows,
            f"simplest within a quarter of the best: {comparison.chosen.model}; "
            f"the table uses {table.calibration.model}",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
