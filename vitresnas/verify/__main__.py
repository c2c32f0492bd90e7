"""Re-time a model directory on this device, and complete its verdict; score it again with --data.

vitresnas verify runs/search/model --throughput-target 2x
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.arguments import WholeNumber, positive
from vitresnas.doors import Parser, door, print_json, rows_of, say
from vitresnas.files import JsonObject
from vitresnas.latency.runtime import runtime_name
from vitresnas.search.check import exit_code
from vitresnas.search.constraint import Target


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas verify",
        description=__doc__,
        example="vitresnas verify runs/search/model",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a search's folder or model")
    parser.add_argument("--throughput-target", metavar="N|Nx", help="instead of the search's own")
    parser.add_argument(
        "--as",
        type=Path,
        dest="search",
        metavar="SEARCH",
        help="of a model trained after a search: its target, batch size, number type and runtime",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--batch-size", type=WholeNumber(1), help="instead of the search's own")
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16", "fp16"), help="instead of the search's own"
    )
    parser.add_argument("--runtime", type=runtime_name, help="instead of the search's own")
    parser.add_argument("--threads", type=WholeNumber(1), help="instead of the search's own")
    parser.add_argument(
        "--seconds",
        type=positive,
        metavar="S",
        help="how long to time (15); up to eight times that while the verdict is undecided",
    )
    parser.add_argument("--data", help="its images: also score the model on their test split")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    arguments = parser.parse_args(argv)
    # Imports of torch wait until the command line has been understood.
    from vitresnas.models.model_directory import find_model
    from vitresnas.verify.score import score
    from vitresnas.verify.timing import aim_as, verify

    text = arguments.throughput_target
    target = None if text is None else Target.parse(text)
    directory = find_model(arguments.directory)
    say(f"timing {directory}")
    if arguments.search is not None:
        aim_as(directory, arguments.search)
    found = verify(
        directory,
        target,
        device=arguments.device,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
        runtime=arguments.runtime,
        thread_count=arguments.threads,
        seconds=arguments.seconds,
    )
    scored: JsonObject = {}
    if arguments.data is not None:
        scored = score(directory, arguments.data, device=arguments.device)
    if arguments.json:
        print_json({**found.to_json(), **scored, "directory": str(directory)})
    else:
        print("\n".join([*found.lines(), *_accuracies(scored)]))
    return exit_code(found.verdict)


def _accuracies(scored: JsonObject) -> list[str]:
    if not scored:
        return []
    from vitresnas.data.by_class import told_worst_first

    test, names, counts = (scored[name] for name in ("test", "class_names", "test_images"))
    rows = [
        ("test", f"accuracy {test['accuracy']:.4f} of {sum(counts)} images"),
        ("by class", told_worst_first(names, test["accuracy_by_class"], counts)),
    ]
    return rows_of(rows)


if __name__ == "__main__":
    sys.exit(main())
