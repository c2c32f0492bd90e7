"""How well inherited weights rank networks: train a few alone and compare the two rankings.

python -m vitresnas.fidelity
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitresnas.doors import Parser, door, print_json, rows_of

if TYPE_CHECKING:
    from vitresnas.fidelity.result import FidelityResult

_WORDS = {
    "negative_log_likelihood": "likelihood",
    "calibrated": "calibrated likelihood",
    "accuracy": "accuracy",
}


def _parser() -> Parser:
    parser = Parser(
        prog="vitresnas fidelity",
        description=__doc__,
        example="vitresnas fidelity --supernet runs/supernet --out runs/fidelity",
    )
    add = parser.add_argument
    add("--supernet", type=Path, help="a trained super-network; without it, the one a search makes")
    add("--space", default="digits", help="space of the super-network, if none is given (digits)")
    add("--data", help="what it was trained on: digits (default), or a folder")
    add("--networks", type=int, default=16, help="how many to train alone (default 16)")
    add("--epochs", type=int, default=6, help="epochs of each training (default 6)")
    add("--repeats", type=int, default=3, help="how many of them to train from several seeds (3)")
    add("--seeds", type=int, default=3, help="from how many seeds (default 3)")
    add("--seed", type=int, default=0, help="seed of every random choice (default 0)")
    add("--workers", type=int, help="trainings at a time (default: one per core, 1 on a GPU)")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--out", type=Path, default=Path("runs/fidelity"), help="folder (default runs/fidelity)")
    add("--json", action="store_true", help="print the result as one JSON document on stdout")
    return parser


@door
def main(argv: Sequence[str] | None = None) -> int:
    options = vars(_parser().parse_args(argv))
    as_json = options.pop("json")
    from vitresnas.fidelity.request import FidelityRequest
    from vitresnas.fidelity.run import files_written, run

    request = FidelityRequest(**options)
    result = run(request)
    files = files_written(request.out)
    if as_json:
        print_json({**result.to_json(), "files": files})
    else:
        print("\n".join([summary(result), *rows_of(files.items())]))
    return 0


def summary(result: FidelityResult) -> str:
    """A few lines for people."""
    from vitresnas.fidelity.exposure import lines

    found = result.agreements
    rows = [(_WORDS[one.measure], str(one)) for one in found]
    noise = found[0].noise
    if noise is not None:
        rows.append(("noise between seeds", f"{100 * noise:.1f} % of the likelihood"))
    rows.append(("likelihood depends on", str(result.influence[0])))
    text = [
        f"inherited weights against {len(result.networks)} networks trained alone for "
        f"{result.settings['epochs']} epochs",
        *rows_of(rows, width=21),
        "  every choice: its share of the super-network's training, its mean likelihood",
        *(f"    {line}" for line in lines(result.exposure)),
    ]
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
