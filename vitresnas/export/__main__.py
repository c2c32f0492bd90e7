"""A model directory as one file that runs without this package.

vitresnas export runs/search/model --format onnx
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas export",
        description="Write a model directory as one file that runs without this package.",
        example="vitresnas export runs/search/model --format onnx",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a model, or a search's folder")
    parser.add_argument(
        "--format",
        required=True,
        choices=("torch-export", "onnx"),
        type=lambda name: name.replace(".", "-"),
        help="torch-export writes a .pt2 file of torch's operators, onnx an .onnx file",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: model.* in DIR")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    arguments = parser.parse_args(argv)
    from vitresnas.export.export import export_model
    from vitresnas.models.model_directory import find_model

    found = export_model(find_model(arguments.directory), arguments.format, arguments.out)
    batches = ", ".join(map(str, found.batch_sizes))
    say(
        f"wrote {found.path} ({found.bytes / 2**20:.1f} MiB): its logits are within "
        f"{found.worst_error:.1e} of eager ones at batches of {batches}"
    )
    if arguments.json:
        print_json(found.to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
