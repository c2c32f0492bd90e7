"""The authors' checkpoints as model directories of ours.

python -m vitresnas.import_official CKPT --network-def '((4, 176), ...)' --out DIR
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door
from vitresnas.space.network_def import read_network_def


@door
def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    network_def = read_network_def(_definition(arguments.network_def))
    from vitresnas.models.imported import write_imported
    from vitresnas.models.official import import_official

    model = import_official(arguments.checkpoint, network_def, patch_size=arguments.patch_size)
    name = arguments.checkpoint.name
    card = {"source": name, "made_by": "import_official"}
    write_imported(model, arguments.out, card, name=name, as_json=arguments.json)
    return 0


def _definition(text: str) -> str:
    """A definition is long: it may stand in a file, given as @FILE."""
    if not text.startswith("@"):
        return text
    from vitresnas.errors import InputError

    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the network definition {text[1:]} ({error})") from None


def _parser() -> Parser:
    parser = Parser(
        prog="vitresnas import-official",
        description="Read a checkpoint of the authors and write it as a model directory.",
        example="vitresnas import-official vit_resnas_tiny.pth "
        "--network-def '((4, 176), (1, (176, 3, 32), (176, 704), 1), ..., (2, 704, 1000))' "
        "--out runs/tiny",
    )
    parser.add_argument("checkpoint", type=Path, help="the authors' .pth file")
    parser.add_argument(
        "--network-def", required=True, help="their nested tuple, or @FILE that holds it"
    )
    parser.add_argument("--patch-size", type=int, default=14, help="pixels per patch (14)")
    parser.add_argument("--out", type=Path, required=True, help="the model directory to write")
    parser.add_argument("--json", action="store_true", help="the summary as JSON on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
