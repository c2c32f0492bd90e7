"""A plain DeiT or ViT of timm as a model directory: a teacher, or a baseline to time and compare.

vitresnas import-timm deit_tiny_patch16_224 --out runs/deit-tiny
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say


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
    from vitresnas.models.model_directory import save_model
    from vitresnas.models.timm_weights import from_timm, timm_network
    from vitresnas.space import macs, parameters

    model = from_timm(timm_network(arguments.network, arguments.weights), arguments.network)
    card = {"source": f"timm, {arguments.network}", "made_by": "import_timm"}
    save_model(model, arguments.out, card)
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
        f"{arguments.network}: {architecture.depth} blocks, "
        f"{summary['parameters_inference']:,} parameters, {summary['macs']:,} MACs at "
        f"{architecture.image_size} pixels\nwrote {arguments.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
