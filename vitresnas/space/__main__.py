"""List, show and derive search spaces.

python -m vitresnas.space derive --image-size 96 --classes 7 --out space.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import JsonObject
from vitresnas.space import SPACES, SearchSpace, derive_space, load_space, macs, parameters


@door
def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    run = {"list": _list, "show": _show, "derive": _derive}[arguments.action]
    return run(arguments)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.json:
        print_json({"spaces": [describe_space(space) for space in SPACES.values()]})
        return 0
    for space in SPACES.values():
        print(_in_a_line(space))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    space = load_space(arguments.space)
    if arguments.json:
        print_json(describe_space(space))
        return 0
    print(_in_a_line(space))
    for number, (stage, grid) in enumerate(
        zip(space.stages, space.largest.grids, strict=True), start=1
    ):
        skippable = ", ".join(map(str, stage.skippable)) or "none"
        print(
            f"  stage {number}, {grid}x{grid} patches, head dim {stage.head_dim}, "
            f"{stage.blocks} blocks (may be skipped: {skippable})"
        )
        for name in ("embed", "heads", "hidden"):
            print(f"    {name:7}{' '.join(map(str, getattr(stage, name)))}")
    return 0


def _derive(arguments: argparse.Namespace) -> int:
    space = derive_space(arguments.image_size, arguments.classes, name=arguments.name)
    if arguments.out.exists() and SearchSpace.load(arguments.out).id != space.id:
        raise InputError(
            f"{arguments.out} holds another space: choose another --out, or remove it first"
        )
    space.save(arguments.out)
    if arguments.json:
        print_json({**describe_space(space), "out": str(arguments.out)})
    else:
        print(_in_a_line(space))
    say(f"wrote {arguments.out}")
    return 0


def describe_space(space: SearchSpace) -> JsonObject:
    """The choices of a space and what its ends cost. `networks` counts distinct ones."""
    ends = {"largest": space.largest, "smallest": space.smallest}
    return {
        **space.to_json(),
        "id": space.id,
        "networks": space.size,
        "operations": len(space.operations()),
        **{
            name: {"macs": macs(end), "parameters": parameters(end), "id": end.id}
            for name, end in ends.items()
        },
    }


def _in_a_line(space: SearchSpace) -> str:
    grids = " ".join(map(str, space.largest.grids))
    low, high = macs(space.smallest) / 1e6, macs(space.largest) / 1e6
    return (
        f"{space.name}: {space.image_size} pixels, patch {space.patch_size}, grids {grids}, "
        f"{space.classes} classes, {space.size:.1e} networks of {low:,.0f} to {high:,.0f} M MACs"
    )


def _parser() -> Parser:
    parser = Parser(
        prog="vitresnas space",
        description="List the spaces, show one, or derive one for other images.",
        example="vitresnas space derive --image-size 96 --classes 7 --out space.json",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|derive")
    listing = actions.add_parser("list", help="every preset", example="vitresnas space list")
    show = actions.add_parser(
        "show", help="the choices of one space", example="vitresnas space show tiny"
    )
    show.add_argument("space", help=f"{', '.join(SPACES)}, or a space file")
    derive = actions.add_parser(
        "derive",
        help="a space for other images, as a file to use or to edit",
        example="vitresnas space derive --image-size 96 --classes 7 --out space.json",
    )
    derive.add_argument("--image-size", type=int, required=True, help="side of the images, pixels")
    derive.add_argument("--classes", type=int, required=True, help="how many classes there are")
    derive.add_argument("--name", help="the space's name (derived-SIZE)")
    derive.add_argument("--out", type=Path, required=True, help="the file to write")
    for action in (listing, show, derive):
        action.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
