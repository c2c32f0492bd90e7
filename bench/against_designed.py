"""A search's network against networks designed by hand, equally fast and trained for equal time.

    python bench/against_designed.py --throughput-target 2x --out DIR

Stage `supernet` trains the super-network in the time given and tells the test accuracy of its
largest, median (by MACs, of 100 fixed draws) and smallest network, weights inherited.

Stage `compare` then takes four contestants:
  found    what a search finds under the throughput target, measured and proven
  random   the best of as many uniform draws
  deit     a DeiT-like network of timm: one width, one number of heads, no reduction
  pit      a PiT-like network of timm: stages with pooling between
Width and depth of the last two are chosen so that their throughput, timed side by side with the
network found, comes closest to it; a difference of more than 3 % is flagged. All four are trained
from random weights by the same recipe for the same time: each for as many epochs as its own speed,
measured in turns with the others, allows. The result records the seconds planned and used.

Every part is a folder or a file in --out, from which the same command resumes wherever it was
killed: against_designed.json holds the result, against_designed.png shows it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from designed.contest import compare
from designed.families import FAMILIES, USUAL
from designed.picture import draw
from designed.request import Request
from designed.supernet import train_supernet
from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import JsonObject, storage_errors, write_json
from vitresnas.latency.environment import describe_environment
from vitresnas.latency.runtime import runtime_name, runtime_names
from vitresnas.search.strategies import STRATEGIES

KIND = "against_designed"
UNEQUAL = 1.1  # seconds used, most over least, that are worth a sentence
SUPERNET, COMPARE, ALL = "supernet", "compare", "all"


@door
def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    names = {field.name for field in fields(Request)}
    given = {name: value for name, value in vars(options).items() if name in names}
    request = Request(**given)
    if options.stage != SUPERNET and request.throughput_target is None:
        raise InputError("the comparison needs a speed: give --throughput-target, as in 2x")
    with storage_errors(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
    data, space = request.read()
    document: JsonObject = {}
    if options.stage != COMPARE:
        document = {"supernet": train_supernet(request, data, space)}
        say("\n".join(_sizes(document["supernet"])))
    if options.stage != SUPERNET:
        document |= {
            "space": {"name": space.name, "id": space.id},
            "data": {"name": data.name, "id": data.id, "test_images": len(data.test)},
            "seed": request.seed,
            **compare(request, data, space),
            "environment": describe_environment(),
        }
        write_json(request.out / "against_designed.json", KIND, document)
        draw(document, request.out / "against_designed.png")
    if options.json:
        print_json(document)
    elif "contestants" in document:
        print("\n".join(_lines(document)))
        say(f"wrote {request.out / 'against_designed.json'} and .png")
    return 0


def _parse(argv: Sequence[str] | None) -> Any:
    parser = Parser(
        prog="against_designed.py",
        description="A search's network against hand-designed ones of equal measured throughput, "
        "retrained by the same recipe for the same time.",
        example="python bench/against_designed.py --recipe cifar-supernet --data cifar10 "
        "--hours 0.1 \\\n      --retrain-hours 0.01 --throughput-target 2x --out against",
    )
    add = parser.add_argument
    stages = (SUPERNET, COMPARE, ALL)
    add("--stage", choices=stages, default=ALL, help="the part to do in this command (all)")
    add("--recipe", default="digits-supernet", help="of the super-network (digits-supernet)")
    add("--space", help="a space by name or file (the recipe's)")
    add("--data", help="images, as for training (the recipe's)")
    add("--hours", type=float, help="of training the super-network (the recipe's epochs)")
    add("--retrain-recipe", help="of the contestants (the one matching --recipe)")
    add("--retrain-hours", type=float, help="of each contestant (what found's epochs take)")
    add("--throughput-target", metavar="N|Nx", help="images per second, or times the largest")
    add("--strategy", choices=tuple(STRATEGIES), default="evolution", help="(evolution)")
    add("--candidates", type=int, help="networks the search scores (as suits the space)")
    add("--designed", type=_families, default=USUAL, help=f"of {','.join(FAMILIES)} (deit,pit)")
    add("--device", default="auto", help="auto, cpu, cuda ...")
    add("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="for timing (fp32)")
    add("--batch-size", type=int, help="images per batch, for timing (GPU: 128; CPU: 32 or 8)")
    add("--runtime", type=runtime_name, default="eager", help=", ".join(runtime_names()))
    add("--threads", type=int, help="CPU threads, for timing")
    add("--workers", type=int, help="processes that decode and augment images")
    add("--table-seconds", type=float, default=30.0, help="of measuring the latency table (30)")
    add("--proof-seconds", type=float, default=15.0, help="of timing side by side (15)")
    add("--seed", type=int, default=0, help="seed of everything (0)")
    add("--out", type=Path, required=True, help="the folder to write")
    add("--json", action="store_true", help="the result as JSON on stdout")
    return parser.parse_args(argv)


def _families(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in FAMILIES]:
        raise InputError(f"--designed has {unknown[0]!r}: use {', '.join(FAMILIES)}")
    return names


def _sizes(document: JsonObject) -> list[str]:
    """A super-network, for people."""
    lines = [
        f"super-network: {document['epochs']} epochs, {document['planned_seconds']:.0f} s planned, "
        f"{document['used_seconds']:.0f} s used"
    ]
    for scores in document["networks"]:
        lines.append(
            f"  {scores['size']:9} {scores['macs'] / 1e6:8.1f} M MACs   "
            f"test accuracy {100 * scores['test_accuracy']:.2f} %, inherited"
        )
    return lines


def _lines(document: JsonObject) -> list[str]:
    """For people, a contestant a line."""
    lines = [
        f"{'':8} {'images/s (95 %)':>24} {'of found':>9} {'M MACs':>7} {'M par.':>7} "
        f"{'epochs':>6} {'planned':>8} {'used':>8} {'hold-out nll':>13}   test (95 % of the images)"
    ]
    for row in document["contestants"]:
        low, high = row["interval_95"]
        worst, best = row["test_accuracy_interval_95"]
        speed = f"{row['images_per_second']:,.0f} ({low:,.0f} to {high:,.0f})"
        lines.append(
            f"{row['contestant']:8} {speed:>24} "
            f"{row['relative']:>9.3f} {row['macs'] / 1e6:>7.1f} {row['parameters'] / 1e6:>7.2f} "
            f"{row['epochs']:>6} {row['planned_seconds']:>6.0f} s {row['used_seconds']:>6.0f} s "
            f"{row['holdout_negative_log_likelihood']:>13.4f}   "
            f"{100 * row['test_accuracy']:.2f} % ({100 * worst:.2f} to {100 * best:.2f})"
        )
    for row in document["contestants"]:
        if "timm_network" in row and not row["within_tolerance"]:
            lines.append(
                f"{row['contestant']} is {100 * abs(row['relative'] - 1):.1f} % off the found "
                f"network's throughput, more than {document['tolerance_percent']:.0f} %"
            )
    least, most = (document["used_seconds"][end] for end in ("least", "most"))
    if most > UNEQUAL * least:
        lines.append(
            f"trainings planned for {document['planned_seconds']:.0f} s each took {least:.0f} to "
            f"{most:.0f} s: this machine was disturbed while steps were timed, or later"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
