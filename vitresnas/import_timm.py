"""A plain DeiT or ViT of timm as a model directory: a teacher, or a baseline to time and compare.

vitresnas import-timm deit_tiny_patch16_224 --out runs/deit-tiny
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas import-timm",
        description="Write a plain DeiT of timm, with its weights, as a model directory.",
        example="vitresnas import-timm deit_tiny_patch16_224 --out runs/deit-tiny",
    )
    parser.add_argument("network", help="timm's name of it")
    parser.add_argument("--weights", type=Path, help="timm's file, instead of downloading it")
    parser.add_argument("--out", type=Path, required=True, help="the model directory to write")
    parser.add_argument("--json", action="store_true", help="the summary as JSON on stdout")
    arguments = parser.parse_args(argv)
    from timm.data import resolve_model_data_config

    from vitresnas.models.imported import write_imported
    from vitresnas.models.timm_weights import from_timm, timm_network

    name = arguments.network
    theirs = timm_network(name, arguments.weights)
    model = from_timm(theirs, name)
    card = {"source": f"timm, {name}", "made_by": "import_timm"}
    # How much of an image timm evaluates these weights on.
    crop = {"crop_pct": resolve_model_data_config(theirs)["crop_pct"]}
    write_imported(model, arguments.out, {**card, **crop}, name=name, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
