"""A model directory timed again, on this device, and the verdict on its card."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from vitresnas.doors import rows_of
from vitresnas.errors import InputError, MismatchError
from vitresnas.files import Fields, JsonObject
from vitresnas.latency.cores import threads
from vitresnas.latency.environment import describe_environment
from vitresnas.latency.existing import guests
from vitresnas.latency.request import default_batch_size, device_name, resolve_device
from vitresnas.models import create_model
from vitresnas.models.model_directory import find_model, load_model, read_card, update_card
from vitresnas.search.check import MEASURE_ON, judge
from vitresnas.search.compared import ComparedModel
from vitresnas.search.complete import complete
from vitresnas.search.constraint import Target
from vitresnas.search.prove import speed_of
from vitresnas.search.timing import SECONDS, example_images, time_until_decided
from vitresnas.space import Architecture


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
