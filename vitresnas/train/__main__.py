"""Train a super-network or one network; the same command resumes an interrupted run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitresnas.doors import Parser, Rank, door, print_json, say
from vitresnas.files import atomic_write

if TYPE_CHECKING:
    from vitresnas.train.recipe import Recipe

EXAMPLE = """vitresnas train --recipe digits-supernet --out supernet
  vitresnas train --recipe cifar-supernet --data my-images --dry-run
  vitresnas train --recipe digits-retrain --architecture found/architecture.json \\
      --init inherited --supernet supernet --out retrained
  torchrun --nproc-per-node 8 -m vitresnas.train --recipe cifar-supernet --data my-images"""


@door
def main(argv: Sequence[str] | None = None) -> int:
    options = vars(_parser().parse_args(argv))
    where = {name: options.pop(name) for name in ("device", "workers")}
    out, seconds, project = (options.pop(name) for name in ("out", "checkpoint_seconds", "wandb"))
    as_json, only_look = options.pop("json"), options.pop("dry_run")
    # Imports of torch wait until the command line has been understood.
    from vitresnas.train.recipes import load_recipe

    recipe = _override(load_recipe(options.pop("recipe")), options)
    if only_look:
        from vitresnas.train.run import look

        found = look(recipe, **where)
        if Rank.here().leads:
            print_json(found.to_json()) if as_json else print("\n".join(found.lines()))
        return 0
    from vitresnas.train.run import run
    from vitresnas.train.wandb_mirror import shown_in_wandb

    out = out or f"runs/{recipe.name}"
    with shown_in_wandb(project, recipe, Path(out)):
        result = run(recipe, out, checkpoint_seconds=seconds, **where)
    if not Rank.here().leads:
        return 0
    from vitresnas.report import render_report

    page = Path(out) / "report.html"
    atomic_write(page, render_report(out).encode())
    for note in result.data["notes"]:
        say(f"note: {note}")
    if as_json:
        print_json({"out": out, **result.to_json()})
    else:
        print("\n".join([*result.lines(), f"written to {out}, curves in {page}"]))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="vitresnas train", description=__doc__, example=EXAMPLE)
    parser.add_argument("--recipe", required=True, help="what to train and how, by name")
    parser.add_argument("--data", help="digits, or a folder of images, Parquet files or shards")
    parser.add_argument(
        "--unreadable-share",
        type=float,
        help="of the images that may be unreadable (default: 0.001)",
    )
    parser.add_argument(
        "--sampling", choices=("shuffled", "balanced"), help="balanced: every class equally often"
    )
    parser.add_argument("--space", help="super-networks: a space by name or file")
    parser.add_argument(
        "--architecture",
        help="retraining: the network, by file or name; timm:NAME@SIZE trains a timm network",
    )
    parser.add_argument(
        "--init",
        choices=("inherited", "random", "trained"),
        help="retraining: weights to start from",
    )
    parser.add_argument("--supernet", help="the super-network that inherited weights come from")
    parser.add_argument("--image-size", type=int, help="retraining: the side of the images")
    parser.add_argument("--teacher", help="retraining: a timm network, or a model directory")
    parser.add_argument(
        "--distillation", choices=("hard", "soft"), help="what to learn from the teacher"
    )
    parser.add_argument("--drop-path", type=float, help="stochastic depth of the last block")
    parser.add_argument(
        "--layer-decay",
        type=float,
        help="retraining: a layer's learning rate, as a share of the next one's",
    )
    parser.add_argument("--out", help="the folder to write (default: runs/RECIPE)")
    parser.add_argument(
        "--sampler",
        help="super-networks: which networks a step trains: multi-architecture (the paper's), "
        "single-architecture, or sandwich (with in-place distillation)",
    )
    parser.add_argument("--groups", type=int, help="super-networks: networks per step")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="of every random choice (the recipe's)")
    parser.add_argument("--batch-size", type=int, help="images per step, over all processes")
    parser.add_argument(
        "--accumulation", type=int, help="turns to split a batch into that does not fit into memory"
    )
    parser.add_argument("--learning-rate", type=float, help="instead of the recipe's")
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), help="of a step's computation")
    parser.add_argument(
        "--path",
        choices=("auto", "fused", "sliced", "masked"),
        help="super-networks: how a step is computed; --dry-run times each",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--workers", type=int, help="processes that decode and augment images")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=15.0,
        help="seconds between checkpoints (default: 15; 0: after every step)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="train nothing; print model, memory and time"
    )
    parser.add_argument("--wandb", metavar="PROJECT", help="also show the run in Weights & Biases")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    return parser


def _override(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    """The recipe with what the command line names. Raises InputError for what does not apply."""
    from vitresnas.errors import InputError
    from vitresnas.train.recipe import RETRAIN, SUPERNET

    given = {name: value for name, value in options.items() if value is not None}
    taught = ("teacher", "distillation")
    foreign = {
        SUPERNET: ("architecture", "init", "supernet", "image_size", "layer_decay", *taught),
        RETRAIN: ("space", "sampler", "groups", "path"),
    }[recipe.task]
    for name in foreign:
        if name in given:
            raise InputError(
                f"--{name.replace('_', '-')} does not apply to {recipe.name}, a recipe of the "
                f"kind {recipe.task}: leave it out, or choose another recipe"
            )
    if recipe.task == RETRAIN and "architecture" not in given:
        raise InputError(
            f"{recipe.name} trains one network: name it with --architecture FILE "
            "(a search writes OUT/architecture.json)"
        )
    if given.get("image_size") == 0:  # a recipe's 0 stands for what the architecture says
        raise InputError("image_size is 0: use the side of images in pixels, or leave it out")
    if "supernet" in given and given.get("init") != "inherited":
        raise InputError("--supernet is only read for inherited weights: add --init inherited")
    return replace(recipe, **given)


if __name__ == "__main__":
    sys.exit(main())
