"""The authors' checkpoints as model directories of ours.

python -m vitresnas.import_official CKPT --network-def '((4, 176), ...)' --out DIR
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.space.network_def import read_network_def


@door
def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    network_def = read_network_def(_definition(arguments.network_def))
    from vitresnas.models.model_directory import save_model
    from vitresnas.models.official import import_official
    from vitresnas.space import macs, parameters

    model = import_official(arguments.checkpoint, network_def, patch_size=arguments.patch_size)
    source = Path(arguments.checkpoint).name
    save_model(model, arguments.out, {"source": source, "made_by": "import_official"})
    architecture = model.architecture
    summary = {
        "architecture_id": architecture.id,
        "image_size": architecture.image_size,
        "macs": macs(architecture),
        "parameters_inference": parameters(architecture),
        "out": str(arguments.out),
    }
    if arguments.json:
        print_json(summary)
    say(
        f"{source}: {architecture.depth} blocks, {summary['parameters_inference']:,} parameters, "
        f"{summary['macs']:,} MACs at {architecture.image_size} pixels"
    )
    say(f"wrote {arguments.out}")
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
