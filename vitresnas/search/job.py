"""From a request to a job: the space, the data, a priced table, and a target that can be met."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from vitresnas.data import Data, load_data
from vitresnas.data.unreadable import UNREADABLE_SHARE
from vitresnas.doors import say
from vitresnas.errors import InputError, UnreachableTarget
from vitresnas.files import JsonObject
from vitresnas.latency import LatencyTable, select_table
from vitresnas.latency.compared import misfit
from vitresnas.latency.difference import Difference, differences, in_words
from vitresnas.latency.environment import versions
from vitresnas.latency.existing import find_models, guests
from vitresnas.latency.measure import prepare_guest
from vitresnas.latency.request import Request as LatencyRequest
from vitresnas.latency.request import device_name, machine, resolve_device
from vitresnas.latency.runtime import usable_runtime
from vitresnas.latency.shipped import find_tables
from vitresnas.search.compared import ComparedModel, from_table, untimed
from vitresnas.search.constraint import Constraint, Target, costs_of, refuse_twice
from vitresnas.search.evolution import Evolution
from vitresnas.search.lean import find_lean
from vitresnas.search.prepare import allowed_unreadable, prepare_table
from vitresnas.search.prices import TablePrices
from vitresnas.search.reach import Reach, throughput_reach
from vitresnas.search.strategies import check_strategy, create_strategy
from vitresnas.search.strategy import Strategy
from vitresnas.search.timing import SECONDS
from vitresnas.space import SearchSpace, load_space
from vitresnas.supernet.directory import refuse_other_data, refuse_other_space


@dataclass(frozen=True)
class FineTuning:
    """How many of the finalists are trained further, and for how many epochs."""

    top: int = 0
    epochs: int = 3


@dataclass(frozen=True)
class SearchRequest:
    """What a user asks for. None leaves a choice to the table, the data or this machine.

    `latency_table`: a file, or the name of a device whose table comes with the project.
    """

    target: Target
    space: str = "digits"
    data: str | None = None
    supernet: Path | None = None
    latency_table: str | Path | None = None
    batch_size: int | None = None
    dtype: str | None = None
    runtime: str | None = None
    threads: int | None = None
    device: str = "auto"
    strategy: str = Evolution.name
    objectives: tuple[str, ...] = ()  # of a strategy that minimises several; () for its own
    candidates: int | None = None  # that the strategy scores; None for as many as suit the space
    constraints: tuple[Constraint, ...] = ()
    seed: int = 0
    out: Path = Path("runs/search")
    log: Path | None = None  # evaluations shared with other searches; None for one in `out`
    accept_foreign_table: bool = False
    proof_seconds: float = SECONDS
    margin: float = 0.0  # share of the target by which predictions should exceed it
    finetune: FineTuning = FineTuning()
    unreadable_share: float = UNREADABLE_SHARE  # of the images, that may be left out
    compare: tuple[str, ...] = ()  # existing models, each NAME or NAME@SIZE of timm's


@dataclass(frozen=True)
class Job:
    """A request with everything it needs at hand."""

    request: SearchRequest
    space: SearchSpace
    data: Data
    prices: TablePrices
    reach: Reach
    device: str
    difference: tuple[Difference, ...]  # between the table's machine and this one
    compare: tuple[ComparedModel, ...] = ()
    margin: float = 0.0  # what was asked for, or nothing where no network has that much
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def table(self) -> LatencyTable:
        return self.prices.table

    @property
    def foreign(self) -> bool:
        """Whether the table is of another device, so that nothing can be proved here."""
        return any(one.field == "device" for one in self.difference)

    @property
    def strategy(self) -> Strategy:
        request = self.request
        return create_strategy(request.strategy, self.space, request.objectives, request.candidates)

    @property
    def predicted_largest(self) -> float:
        return self.prices.images_per_second(self.space.largest)

    @property
    def bound(self) -> float:
        """The least prediction, in images per second, that admits a network."""
        return self.request.target.images_per_second(self.predicted_largest)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The throughput's and the others."""
        return (Constraint("throughput", self.bound), *self.request.constraints)

    @property
    def aims(self) -> tuple[Constraint, ...]:
        """The same for predictions, which are to exceed the throughput by the margin."""
        aim = (1 + self.margin) * self.bound
        return (Constraint("throughput", aim), *self.request.constraints)

    def target_json(self) -> JsonObject:
        """The target as files tell it."""
        target, condition = self.request.target, self.table.condition
        return {
            "images_per_second": self.bound,
            "requested": str(target),
            "amount": target.amount,
            "relative": target.relative,
            "batch_size": condition.batch_size,
            "dtype": condition.dtype,
            "runtime": condition.runtime,
            "threads": condition.threads,
            "device": condition.device,
        }


def create_job(request: SearchRequest) -> Job:
    """Load the data, find or measure the table, and refuse a target that nothing reaches.

    Raises InputError, DataError, MismatchError (a table or a super-network of something else),
    UnreachableTarget.
    """
    check_strategy(request.strategy, request.objectives)
    refuse_twice(request.constraints)
    seconds: dict[str, float] = {}
    with phase(seconds, "data"):
        space = load_space(request.space)
        allowed = max(request.unreadable_share, allowed_unreadable(request.supernet))
        data = load_data(request.data, image_size=space.image_size, unreadable_share=allowed)
        space = space.with_data(classes=len(data.class_names))
    find_lean(space, request.constraints, None)  # refuses a bound that no network keeps
    if request.supernet is not None:
        refuse_other_space(request.supernet, space)  # now, not after minutes of measuring
        refuse_other_data(request.supernet, data.name, data.id)
    models = find_models(request.compare)
    if notice := misfit(models, space.image_size, space.classes):
        say(notice)
    device = resolve_device(request.device)
    difference: tuple[Difference, ...] = ()
    tables: tuple[LatencyTable, ...] = ()
    if request.latency_table is None:
        with phase(seconds, "latency_table"):
            table = prepare_table(space, _latency_request(request))
    else:
        table, tables = _given_table(request, request.latency_table, space, device)
        difference = _difference(request, table, device)
    prices = TablePrices(table, tables)
    costs_of(space.largest, prices, request.objectives)  # refuses what this table does not tell
    reach = throughput_reach(space, prices)
    compare = from_table(models, table)
    job = Job(request, space, data, prices, reach, device, difference, compare, seconds=seconds)
    _check_target(job)
    find_lean(space, job.constraints, prices)  # now also what only a table knows, and all together
    job = _with_margin(job)
    _say_difference(job)
    if not job.foreign:
        _try_compared(job)
    return job


def _given_table(
    request: SearchRequest, name: str | Path, space: SearchSpace, device: str
) -> tuple[LatencyTable, tuple[LatencyTable, ...]]:
    """The condition asked for, and all that lie beside it.

    A table of another device is taken only when the user says so: by the name of a device, or with
    a file by `accept_foreign_table`.
    """
    found = find_tables(name)
    any_device = found.shipped or request.accept_foreign_table
    table = select_table(
        found.tables,
        batch_size=request.batch_size,
        dtype=request.dtype,
        runtime=request.runtime,
        threads=request.threads,
        device=None if any_device else device_name(device),
        space_id=space.id,
        where=found.where,
    )
    return table, found.tables


def _difference(request: SearchRequest, table: LatencyTable, device: str) -> tuple[Difference, ...]:
    try:
        libraries = usable_runtime(table.condition.runtime, device).versions(device)
    except InputError:
        libraries = {}  # what is not installed here has no version here
    here = machine(device, request.threads, libraries)
    if here["device"] == table.condition.device:
        here["threads"] = table.condition.threads  # as the finalists will be timed
    return differences(table, here, versions())


def _try_compared(job: Job) -> None:
    """Run every existing model once: one that cannot run is found before the search, not after."""
    models, condition = [one.model for one in job.compare], job.table.condition
    for label, guest in guests(models, condition.batch_size, job.device).items():
        prepare_guest(label, guest, condition.dtype, condition.runtime)


def _check_target(job: Job) -> None:
    target, reach, largest = job.request.target, job.reach, job.predicted_largest
    condition = job.table.condition
    span = (
        f"{reach.minimum:,.0f} to {reach.maximum:,.0f} images/s, or "
        f"{reach.minimum / largest:.2f}x to {reach.maximum / largest:.2f}x the largest network"
    )
    asked = f"{target}" + (f" ({job.bound:,.0f} images/s)" if target.relative else "")
    if job.bound > reach.bound:
        raise UnreachableTarget(
            f"no network of the {condition} reaches {asked}: "
            f"the reachable range is {span}; choose a target inside it, or a faster space"
        )
    if job.bound <= reach.minimum:
        say(f"every network is predicted to reach {asked}; the range is {span}")


def _with_margin(job: Job) -> Job:
    """With the margin that was asked for, where some network may have it."""
    wanted = replace(job, margin=job.request.margin)
    try:
        find_lean(wanted.space, wanted.aims, wanted.prices)
    except UnreachableTarget:
        say(
            f"no network is predicted to exceed {job.request.target} by {wanted.margin:.1%}: "
            "searching without that margin"
        )
        return job
    return wanted


def _say_difference(job: Job) -> None:
    """One sentence on how the table's machine differs from this one, and what follows from it."""
    if job.foreign:
        missing = ", ".join(untimed(job.compare))
        say(
            "warning: the latency table is of another machine "
            f"({in_words(job.difference)}): nothing is timed here and the verdict stays "
            f'"unproven" until `vitresnas verify {job.request.out}` completes it on that device'
            + (f"; the table does not hold {missing}" if missing else "")
        )
    elif job.difference:
        say(
            "warning: the latency table is of this device in another state "
            f"({in_words(job.difference)}): predictions may be off, which the proof will show"
        )


def _latency_request(request: SearchRequest) -> LatencyRequest:
    return LatencyRequest(
        device=request.device,
        dtype=request.dtype or "fp32",
        batch_size=request.batch_size,
        runtime=request.runtime or "eager",
        threads=request.threads,
    )


@contextmanager
def phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the time of what runs inside to `seconds[name]`."""
    begin = time.monotonic()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - begin
