"""Stages, parameters and MACs of a network, without building it.

python -m vitresnas.describe tiny --json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vitresnas.doors import Parser, door, print_json
from vitresnas.files import JsonObject
from vitresnas.space import (
    NETWORKS,
    Architecture,
    Operation,
    load_architecture,
    macs,
    operations,
    parameters,
)


@door
def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    architecture = load_architecture(arguments.network)
    if arguments.image_size is not None:
        architecture = architecture.resized(arguments.image_size)
    if arguments.json:
        print_json(describe(architecture))
    else:
        print_table(architecture)
    return 0


def describe(architecture: Architecture) -> JsonObject:
    """What `--json` prints. A stage's figures include the reduction that leads into it."""
    first, *between, last = _pieces(architecture)
    stages = [
        {
            "grid": grid,
            "tokens": tokens,
            "embed": stage.embed,
            "head_dim": stage.head_dim,
            "blocks": [
                {"heads": block.heads, "hidden": block.hidden} if block else None
                for block in stage.blocks
            ],
            **_sums(pieces),
        }
        for stage, grid, tokens, pieces in zip(
            architecture.stages, architecture.grids, architecture.tokens, between, strict=True
        )
    ]
    return {
        "id": architecture.id,
        "image_size": architecture.image_size,
        "patch_size": architecture.patch_size,
        "channels": architecture.channels,
        "classes": architecture.classes,
        "prefix_tokens": architecture.prefix_tokens,
        "macs": macs(architecture),
        "parameters_inference": parameters(architecture),
        "parameters_training": parameters(architecture, patch_head=True),
        "embedding": {"kind": architecture.embedding.kind, **_sums(first)},
        "stages": stages,
        "head": _sums(last),
    }


def print_table(architecture: Architecture) -> None:
    """The same for people, on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    found = describe(architecture)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("part", no_wrap=True)
    for column in ("tokens", "width", "head dim"):
        table.add_column(column, justify="right")
    table.add_column("heads/hidden of each block (- skipped)", ratio=1)
    for column in ("parameters", "MACs"):
        table.add_column(column, justify="right", no_wrap=True)

    def row(part: str, figures: JsonObject, tokens: str, width: str, dim: str, blocks: str) -> None:
        share = f"{100 * figures['macs'] / found['macs']:.1f}%"
        price = f"{figures['macs'] / 1e6:,.1f} M  {share:>5}"
        table.add_row(part, tokens, width, dim, blocks, f"{figures['parameters']:,}", price)

    kind = found["embedding"]["kind"]
    row(f"{kind} embedding", found["embedding"], "", "", "", "")
    for number, (stage, figures) in enumerate(
        zip(architecture.stages, found["stages"], strict=True), start=1
    ):
        blocks = " ".join(
            f"{block.heads}/{block.hidden}" if block else "-" for block in stage.blocks
        )
        numbers = (str(figures["tokens"]), str(stage.embed), str(stage.head_dim))
        row(f"stage {number}, {figures['grid']}x{figures['grid']}", figures, *numbers, blocks)
    row("head", found["head"], "", str(architecture.stages[-1].embed), "", "")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(
        f"network {found['id']}: {architecture.image_size} pixels, patch "
        f"{architecture.patch_size}, {architecture.depth} blocks, {architecture.classes} classes, "
        f"{architecture.prefix_tokens} prefix token(s)",
        highlight=False,
    )
    console.print(table)
    console.print(
        f"MACs        {found['macs']:>14,}  for one image\n"
        f"parameters  {found['parameters_inference']:>14,}  inference\n"
        f"            {found['parameters_training']:>14,}  training, with the patch head",
        highlight=False,
    )


def _pieces(architecture: Architecture) -> list[list[Operation]]:
    """Embedding, every stage with the reduction into it, head."""
    *body, head = operations(architecture)
    rest = iter(body[1:])
    counts = [2 * len(stage.kept) + (index > 0) for index, stage in enumerate(architecture.stages)]
    return [[body[0]], *([next(rest) for _ in range(count)] for count in counts), [head]]


def _sums(pieces: Sequence[Operation]) -> dict[str, int]:
    return {
        "macs": sum(piece.macs for piece in pieces),
        "parameters": sum(piece.parameters for piece in pieces),
    }


def _parser() -> Parser:
    parser = Parser(
        prog="vitresnas describe",
        description="Print the stages, parameters and MACs of a network.",
        example="vitresnas describe digits:largest --json",
    )
    parser.add_argument(
        "network",
        help=f"{', '.join(NETWORKS)}, SPACE:largest, SPACE:smallest, an architecture.json, "
        "or a directory that holds one",
    )
    parser.add_argument("--image-size", type=int, help="figures for another input side, in pixels")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
