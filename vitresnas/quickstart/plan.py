"""The plan: what will be done in the time given, decided once and kept in the folder."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from vitresnas.doors import say
from vitresnas.errors import InputError, MismatchError
from vitresnas.files import Fields, JsonObject, read_json, write_json
from vitresnas.latency.busy import Watch, busy_warning
from vitresnas.latency.cores import threads
from vitresnas.latency.decide import LENGTHS
from vitresnas.latency.request import resolve_device
from vitresnas.progress import duration
from vitresnas.quickstart.pace import DevicePace, measure_pace
from vitresnas.quickstart.recipes import batch_of, supernet_recipe
from vitresnas.quickstart.request import Request
from vitresnas.quickstart.schedule import Circumstances, Schedule, choose
from vitresnas.quickstart.spaces import SIDES, candidates
from vitresnas.quickstart.survey import Survey, survey
from vitresnas.space import SearchSpace, load_space, macs
from vitresnas.train.place import share_cores
from vitresnas.train.recipe import Recipe

PLAN, SPACE = "quickstart_plan.json", "space.json"
KIND = "quickstart_plan"
LOOKING = 0.03, 300.0  # of the time given, and in seconds: at most, for reading the images once


@dataclass(frozen=True)
class Plan:
    """`request` as asked, what the images are, and what was decided."""

    request: Request
    images: Survey
    space: SearchSpace
    train_batch: int
    groups: int
    schedule: Schedule

    def recipe(self, out: Path) -> Recipe:
        """The super-network's."""
        return supernet_recipe(
            data=self.request.data,
            space=str(out / SPACE),
            batch_size=self.train_batch,
            groups=self.groups,
            epochs=self.schedule.supernet_epochs,
            grey=self.images.grey,
            seed=self.request.seed,
            unreadable_share=self.request.unreadable_share,
        )

    def save(self, out: Path) -> None:
        """The plan, and the space as a file that other commands read."""
        self.space.save(out / SPACE)
        write_json(out / PLAN, KIND, self.to_json())

    def to_json(self) -> JsonObject:
        return {
            "request": asdict(self.request),
            "images": asdict(self.images),
            "space": self.space.to_json(),
            "train_batch": self.train_batch,
            "groups": self.groups,
            "schedule": self.schedule.to_json(),
        }

    @classmethod
    def load(cls, out: Path) -> Plan | None:
        """The plan in `out`; None where there is none."""
        path = out / PLAN
        if not path.exists():
            return None
        fields = Fields(read_json(path, KIND), str(path))
        images = fields.take("images")
        plan = cls(
            Request(**fields.take("request")),
            Survey(**{**images, "notes": tuple(images["notes"])}),
            SearchSpace.from_json(fields.take("space"), f"{path}, space"),
            fields.integer("train_batch"),
            fields.integer("groups"),
            Schedule.from_json(fields.take("schedule"), f"{path}, schedule"),
        )
        fields.done()
        return plan

    def lines(self, out: Path) -> list[str]:
        """For people, one stage a line."""
        images, timing, space = self.images, self.schedule, self.space
        kind = "grey" if images.grey else "colour"
        low, high = (macs(end) / 1e6 for end in (space.smallest, space.largest))
        seconds = {name: duration(value) for name, value in timing.seconds.items()}
        lines = [
            f"images         {images.name}: {images.classes} classes; {images.training} to train "
            f"on, {images.holdout} to choose by, {images.test} to test; {kind}, {images.side} "
            "pixels",
            *(f"               {note}" for note in images.notes),
            f"space          {space.name}: {space.size:.1e} networks of {low:,.0f} to {high:,.0f} "
            f"M MACs, {space.image_size} pixels",
            f"latency table  about {seconds['latency_table']}",
            f"super-network  about {seconds['supernet']}: "
            f"{counted(timing.supernet_epochs, 'epoch')}, batches of {self.train_batch} in "
            f"{self.groups} groups",
            f"search         about {seconds['search']}: {self.request.target}, finalists timed",
            f"retraining     about {seconds['retrain']}: "
            f"{counted(timing.retrain_epochs, 'epoch')} if the network found is half the work of "
            "the largest; recomputed then",
            f"verification   about {seconds['verify']}; up to "
            f"{duration(sum(LENGTHS) * timing.seconds['verify'])} while it is too close to call",
            f"in all         about {duration(timing.total)} of "
            f"{duration(3600 * self.request.hours)}, into {out}",
        ]
        if timing.total > 3600 * self.request.hours:
            lines.append(
                "               more than was given: no space is small enough for these images here"
            )
        if images.unequal > 3:
            lines.insert(
                1,
                f"               the largest class has {images.unequal:.0f} times the images of "
                "the smallest: look at accuracies by class",
            )
        return lines


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def find_plan(request: Request, out: Path) -> Plan:
    """The plan that `out` began with, or a new one, saved. Raises MismatchError, InputError."""
    found = Plan.load(out)
    if found is not None and found.request == request:
        return found
    if found is not None and started(out):
        theirs, ours = asdict(found.request), asdict(request)
        field = next(name for name in ours if theirs[name] != ours[name])
        raise MismatchError(
            f"{out} holds a quickstart with {field} {theirs[field]!r}, this command's is "
            f"{ours[field]!r}: {_instead(request, out, field)}"
        )
    plan = make_plan(request)
    plan.save(out)
    return plan


def _instead(request: Request, out: Path, field: str) -> str:
    """What to do about a folder that holds another request."""
    if field != "target" or not (out / "supernet" / "training_result.json").exists():
        return "choose another --out, or repeat the command that began it"
    command = [
        *("vitresnas", "search", "--space", out / SPACE, "--data", request.data),
        *("--supernet", out / "supernet", "--latency-table", out / "latency_table.json"),
        *("--throughput-target", request.target, "--margin", 2, "--out", f"{out}-{request.target}"),
    ]
    return (
        "its super-network and latency table serve any target: "
        f"`{shlex.join(map(str, command))}`; or choose another --out"
    )


def started(out: Path) -> bool:
    """Whether anything but a plan has been made in `out`."""
    made = ("latency_table.json", "latency_table.json.partial.jsonl", "supernet", "search", "final")
    return any((out / name).exists() for name in made)


def make_plan(request: Request) -> Plan:
    """Look at the images, measure a few steps, share out the time.

    Raises InputError, DataError.
    """
    say("looking at the images")
    share, most = LOOKING
    seconds = min(share * 3600 * request.hours, most)
    images = survey(request.data, request.unreadable_share, seconds)
    spaces = _spaces(request, images)
    device = resolve_device(request.device)
    kind = torch.device(device).type
    batch, groups = batch_of(images.training, kind)
    say("timing a few steps")
    watch = Watch()
    known = Circumstances(
        images=images,
        pace=_pace(spaces[0], batch, groups, device),
        scorers=torch.get_num_threads() if kind == "cpu" else 1,
        device_type=kind,
        timed_batch=request.batch_size,
        batch_size=batch,
        seconds=3600 * request.hours,
    )
    space, timing = choose(spaces, known)
    # Small networks waste a part of every step; what was chosen is measured itself.
    while space != spaces[0]:
        spaces = spaces[: spaces.index(space) + 1]
        known = replace(known, pace=_pace(space, batch, groups, device))
        last, (space, timing) = space, choose(spaces, known)
        if space == last:
            break
    if warning := busy_warning(watch.other_cpus()):
        say(warning)
    return Plan(request, images, space, batch, groups, timing)


def _spaces(request: Request, images: Survey) -> tuple[SearchSpace, ...]:
    """What the plan may choose from. Raises InputError."""
    if request.space is not None:
        return (load_space(request.space).with_data(classes=images.classes),)
    spaces = candidates(request.image_size or images.side, images.classes)
    if request.image_size is not None:
        spaces = tuple(space for space in spaces if space.image_size == request.image_size)
    if not spaces:
        raise InputError(f"image_size is {request.image_size}: use {', '.join(map(str, SIDES))}")
    return spaces


def _pace(space: SearchSpace, batch: int, groups: int, device: str) -> DevicePace:
    """With the threads that training will use."""
    _, count = share_cores(torch.device(device).type, batch, macs(space.largest))
    with threads(count) if device == "cpu" else nullcontext():
        return measure_pace(space, batch, groups, device)
