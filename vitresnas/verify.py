"""Re-time a model directory on this device, and complete its verdict.

vitresnas verify runs/search/model --throughput-target 2x
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import Fields, JsonObject
from vitresnas.search.candidate import Speed
from vitresnas.search.constraint import Target

MISSED = 4


@dataclass(frozen=True)
class Verification:
    """A model's speed here and now; `verdict` is "met" or "missed"."""

    verdict: str
    target: JsonObject
    speed: Speed

    def to_json(self) -> JsonObject:
        return {"verdict": self.verdict, "target": self.target, "speed": asdict(self.speed)}


def verify(
    directory: Path,
    target: Target | None = None,
    *,
    device: str = "auto",
    seconds: float | None = None,
) -> Verification:
    """Time the model in `directory` beside its space's largest network and update its card.

    target: instead of the one on the card. Batch size, number type, runtime and threads are those
    of the search. Raises InputError where the card lacks what is needed.
    """
    from vitresnas.latency.environment import describe_environment
    from vitresnas.latency.measure import time_interleaved
    from vitresnas.latency.request import device_name, resolve_device
    from vitresnas.models import create_model
    from vitresnas.models.model_directory import load_model, read_card, update_card
    from vitresnas.search.prove import speed_of
    from vitresnas.search.timing import SECONDS, example_images, threads
    from vitresnas.space import Architecture

    card = read_card(directory)
    where = f"the card of {directory}"
    if "largest" not in card or "target" not in card:
        raise InputError(
            f"{where} does not come from a search (it has no target and no largest network to "
            "compare with): give the model directory of a search"
        )
    asked = Fields(card["target"], f"{where}, target")
    target = target or Target(asked.number("amount"), bool(asked.take("relative")))
    batch_size, count = asked.integer("batch_size"), asked.integer("threads")
    place = resolve_device(device)
    model = load_model(directory, place)
    largest = Architecture.from_json(card["largest"], f"{where}, largest")
    with threads(count):
        times = time_interleaved(
            # The largest net's speed does not depend on its weights.
            {"model": model, "largest": create_model(largest).to(place)},
            example_images(largest, batch_size, place),
            runtime=asked.text("runtime"),
            dtype=asked.text("dtype"),
            seconds=SECONDS if seconds is None else seconds,
        )
    speed = speed_of(times["model"], times["largest"], batch_size)
    lower = (speed.relative_interval_95 if target.relative else speed.interval_95)[0]
    baseline = times["largest"].images_per_second(batch_size)
    verification = Verification(
        verdict="met" if lower >= target.amount else "missed",
        target={
            **card["target"],
            "images_per_second": target.images_per_second(baseline),
            "requested": str(target),
            "amount": target.amount,
            "relative": target.relative,
            "device": device_name(place),
        },
        speed=speed,
    )
    update_card(directory, {**verification.to_json(), "environment": describe_environment()})
    return verification


def find_model(directory: Path) -> Path:
    """The model directory itself, or the one inside a search's folder."""
    inside = directory / "model"
    return inside if (inside / "model_card.json").is_file() else directory


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas verify",
        description=__doc__,
        example="vitresnas verify runs/search/model",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a search's folder or model")
    parser.add_argument("--throughput-target", metavar="N|Nx", help="instead of the search's own")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    arguments = parser.parse_args(argv)
    text = arguments.throughput_target
    directory = find_model(arguments.directory)
    say(f"timing {directory}")
    found = verify(directory, None if text is None else Target.parse(text), device=arguments.device)
    if arguments.json:
        print_json({**found.to_json(), "directory": str(directory)})
    else:
        print(_summary(found))
    return MISSED if found.verdict == "missed" else 0


def _summary(found: Verification) -> str:
    (low, high), (low_x, high_x) = found.speed.interval_95, found.speed.relative_interval_95
    return (
        f"{found.verdict}: {found.target['requested']} on {found.target['device']}\n"
        f"  measured  {found.speed.images_per_second:,.0f} images/s ({low:,.0f} to {high:,.0f}), "
        f"{found.speed.relative:.2f}x the largest ({low_x:.2f} to {high_x:.2f})"
    )


if __name__ == "__main__":
    sys.exit(main())
