"""Re-time a model directory on this device, and complete its verdict; score it again with --data.

vitresnas verify runs/search/model --throughput-target 2x
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vitresnas.arguments import WholeNumber, positive
from vitresnas.doors import Parser, door, print_json, rows_of, say
from vitresnas.errors import InputError, MismatchError
from vitresnas.files import Fields, JsonObject
from vitresnas.latency.runtime import runtime_name
from vitresnas.search.check import MEASURE_ON, exit_code, judge
from vitresnas.search.compared import ComparedModel
from vitresnas.search.constraint import Target


@dataclass(frozen=True)
class Verification:
    """A model's speed here and now; `verdict` is "met", "missed", "undecided", or "unproven" where
    a search that this completes has a bound that is not metered here.

    speed: images_per_second, interval_95, samples, priority, looks, and, where the largest network
    of its space is known, relative and relative_interval_95. compared: the existing models that
    its search asked for, timed in the rounds of the first look.
    """

    verdict: str
    target: JsonObject
    speed: JsonObject
    compared: tuple[ComparedModel, ...] = ()

    def to_json(self) -> JsonObject:
        return {
            "verdict": self.verdict,
            "target": self.target,
            "speed": self.speed,
            "compared": [found.to_json() for found in self.compared],
        }

    def lines(self) -> list[str]:
        """For people."""
        speed, target = self.speed, self.target
        return [
            f"{self.verdict}: {target['requested']} at batch {target['batch_size']}, "
            f"{target['dtype']}, {target['runtime']}, on {target['device']}",
            *rows_of(
                [
                    ("measured", speed_in_words(speed)),
                    *([("what to do", MEASURE_ON)] if self.verdict == "undecided" else []),
                    *(("beside", str(model)) for model in self.compared),
                ]
            ),
        ]


def speed_in_words(speed: JsonObject) -> str:
    """Images per second and times the largest, each with its interval."""
    low, high = speed["interval_95"]
    words = f"{speed['images_per_second']:,.0f} images/s ({low:,.0f} to {high:,.0f})"
    if "relative" not in speed:
        return words
    low, high = speed["relative_interval_95"]
    # Three digits: 1.998 is not 2.
    return f"{words}, {speed['relative']:.3f}x the largest ({low:.3f} to {high:.3f})"


def aim_as(directory: Path, search: Path) -> None:
    """Give the card of a model, trained further after a search, what the search was for.

    That is its target, the conditions it was timed under, and the largest network beside it.
    search: its folder, or the model inside. Raises InputError where its card tells no target,
    MismatchError where it found another network.
    """
    from vitresnas.models.model_directory import find_model, read_card, update_card

    card, found = read_card(directory), read_card(find_model(search))
    if not {"target", "largest"} <= found.keys():
        raise InputError(
            f"the card of {search} does not come from a search: give a search's folder"
        )
    if found["architecture_id"] != card["architecture_id"]:
        raise MismatchError(
            f"{directory} is the network {card['architecture_id']} and {search} found "
            f"{found['architecture_id']}: give the search that found it, or --throughput-target, "
            "--batch-size and --dtype"
        )
    update_card(directory, {name: found[name] for name in ("target", "largest")})


def verify(
    directory: Path,
    target: Target | None = None,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    dtype: str | None = None,
    runtime: str | None = None,
    thread_count: int | None = None,
    seconds: float | None = None,
) -> Verification:
    """Time the model in `directory` beside its space's largest network and update its card.

    seconds: of the first look. While the interval holds the target, further looks follow, of eight
    times that in all (latency/decide.py); what is then still open is "undecided".
    A search around it that was left unproven for this device is completed too. What is not given is
    taken from the card of a search; for other models from this machine's defaults, and then an
    absolute target must be given. Raises InputError where one is missing.
    """
    import torch

    from vitresnas.latency.cores import threads
    from vitresnas.latency.environment import describe_environment
    from vitresnas.latency.existing import guests
    from vitresnas.latency.request import default_batch_size, device_name, resolve_device
    from vitresnas.models import create_model
    from vitresnas.models.model_directory import load_model, read_card, update_card
    from vitresnas.search.complete import complete
    from vitresnas.search.prove import speed_of
    from vitresnas.search.timing import SECONDS, example_images, time_until_decided
    from vitresnas.space import Architecture

    card = read_card(directory)
    where = f"the card of {directory}"
    asked = Fields(card.get("target", {}), f"{where}, target")
    if target is None:
        if "target" not in card:
            raise InputError(f"{where} names no target: give --throughput-target, or --as SEARCH")
        target = Target(asked.number("amount"), bool(asked.take("relative")))
    if target.relative and "largest" not in card:
        raise InputError(
            f"{where} does not come from a search, so there is no largest network to compare with "
            f"for {target}: give --throughput-target in images per second"
        )
    place = resolve_device(device)
    model = load_model(directory, place)
    architecture = model.architecture
    usual = default_batch_size(architecture.image_size, torch.device(place).type)
    batch_size = batch_size or asked.integer("batch_size", default=usual)
    thread_count = thread_count or asked.integer("threads", default=torch.get_num_threads())
    condition: JsonObject = {
        "dtype": dtype or asked.text("dtype", default="fp32"),
        "runtime": runtime or asked.text("runtime", default="eager"),
    }
    compared = Fields({"compared": card.get("compared", [])}, where).items(
        "compared", ComparedModel.from_json
    )
    beside = guests([found.model for found in compared], batch_size, place)
    networks = {"model": model}
    if "largest" in card:
        # The largest net's speed does not depend on its weights.
        largest = Architecture.from_json(card["largest"], f"{where}, largest")
        networks["largest"] = create_model(largest).to(place)
    with threads(thread_count):
        times, looks = time_until_decided(
            networks,
            example_images(architecture, batch_size, place),
            target,
            beside=beside,
            seconds=SECONDS if seconds is None else seconds,
            **condition,
        )
    reference = times.get("largest", times["model"])
    speeds = {name: speed_of(time, reference, batch_size) for name, time in times.items()}
    speed = {**asdict(speeds["model"]), "looks": looks}
    least = target.amount
    if "largest" in speeds:
        least = target.images_per_second(speeds["largest"].images_per_second)
    else:
        del speed["relative"], speed["relative_interval_95"]
    compared = tuple(replace(found, speed=speeds[found.model.label]) for found in compared)
    verification = Verification(
        verdict=judge(speeds["model"].judged_by(target), target.amount),
        target={
            **card.get("target", {}),
            **condition,
            "images_per_second": least,
            "requested": str(target),
            "amount": target.amount,
            "relative": target.relative,
            "batch_size": batch_size,
            "threads": thread_count,
            "device": device_name(place),
        },
        speed=speed,
        compared=compared,
    )
    environment, checks = describe_environment(), {}
    if "largest" in times:
        ordered = [times[name] for name in ("largest", "model", *beside)]
        told = (architecture.id, verification.target, ordered, environment)
        if done := complete(directory.parent, *told):
            verification = replace(verification, verdict=done.verdict)
            checks = {"checks": [found.to_json() for found in done.best.checks]}
    update_card(directory, {**verification.to_json(), **checks, "environment": environment})
    return verification


def score(directory: Path, data: str, *, device: str = "auto") -> JsonObject:
    """The model's test accuracy on `data`, over all and class by class, also into its card.

    Raises MismatchError where the card tells of other images, or the classes are not as many.
    """
    from vitresnas.data import load_data
    from vitresnas.data.by_class import images_by_class
    from vitresnas.data.evaluate import evaluate_model
    from vitresnas.data.unreadable import share_of
    from vitresnas.latency.request import resolve_device
    from vitresnas.models.model_directory import load_model, read_card, update_card

    model = load_model(directory, resolve_device(device))
    classes = model.architecture.classes
    card = read_card(directory)
    images = load_data(
        data, image_size=model.architecture.image_size, unreadable_share=share_of(card)
    )
    known = card.get("data", {}).get("id", images.id)
    if known != images.id or len(images.class_names) != classes:
        raise MismatchError(
            f"{data} ({images.id}, {len(images.class_names)} classes) are not the images that "
            f"{directory} was made with ({known}, {classes} classes), so it may have seen their "
            "test split: give --data the original images"
        )
    found = evaluate_model(model, images.test).to_json()
    update_card(directory, {"test": found})
    names = list(images.class_names)
    counts = images_by_class(images.test, classes)
    return {"test": found, "class_names": names, "test_images": counts}


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="vitresnas verify",
        description=__doc__,
        example="vitresnas verify runs/search/model",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a search's folder or model")
    parser.add_argument("--throughput-target", metavar="N|Nx", help="instead of the search's own")
    parser.add_argument(
        "--as",
        type=Path,
        dest="search",
        metavar="SEARCH",
        help="of a model trained after a search: its target, batch size, number type and runtime",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--batch-size", type=WholeNumber(1), help="instead of the search's own")
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16", "fp16"), help="instead of the search's own"
    )
    parser.add_argument("--runtime", type=runtime_name, help="instead of the search's own")
    parser.add_argument("--threads", type=WholeNumber(1), help="instead of the search's own")
    parser.add_argument(
        "--seconds",
        type=positive,
        metavar="S",
        help="how long to time (15); up to eight times that while the verdict is undecided",
    )
    parser.add_argument("--data", help="its images: also score the model on their test split")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    arguments = parser.parse_args(argv)
    from vitresnas.models.model_directory import find_model

    text = arguments.throughput_target
    target = None if text is None else Target.parse(text)
    directory = find_model(arguments.directory)
    say(f"timing {directory}")
    if arguments.search is not None:
        aim_as(directory, arguments.search)
    found = verify(
        directory,
        target,
        device=arguments.device,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
        runtime=arguments.runtime,
        thread_count=arguments.threads,
        seconds=arguments.seconds,
    )
    scored: JsonObject = {}
    if arguments.data is not None:
        scored = score(directory, arguments.data, device=arguments.device)
    if arguments.json:
        print_json({**found.to_json(), **scored, "directory": str(directory)})
    else:
        print("\n".join([*found.lines(), *_accuracies(scored)]))
    return exit_code(found.verdict)


def _accuracies(scored: JsonObject) -> list[str]:
    if not scored:
        return []
    from vitresnas.data.by_class import told_worst_first

    test, names, counts = (scored[name] for name in ("test", "class_names", "test_images"))
    rows = [
        ("test", f"accuracy {test['accuracy']:.4f} of {sum(counts)} images"),
        ("by class", told_worst_first(names, test["accuracy_by_class"], counts)),
    ]
    return rows_of(rows)


if __name__ == "__main__":
    sys.exit(main())
