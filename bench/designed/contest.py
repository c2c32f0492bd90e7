"""The second stage: networks found and networks designed, equally fast, trained for equal time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

from torch import nn

from designed.families import FAMILIES
from designed.matching import TOLERANCE, Clock, match
from designed.request import Request, curve, looked_at
from plans import decided, equal_epochs, seconds_per_epoch
from vitresnas.data import Data
from vitresnas.doors import say
from vitresnas.errors import InputError
from vitresnas.files import JsonObject
from vitresnas.latency import LatencyTable, load_tables
from vitresnas.latency.build import build_table
from vitresnas.latency.cores import threads
from vitresnas.latency.measure import time_interleaved
from vitresnas.latency.request import Request as TableRequest
from vitresnas.latency.request import resolve_device
from vitresnas.latency.statistics import Measurement
from vitresnas.models import create_model
from vitresnas.models.timm_sized import TimmNetwork
from vitresnas.search import SearchResult, Target
from vitresnas.search.folder import ARCHITECTURE
from vitresnas.search.job import SearchRequest
from vitresnas.search.prove import speed_of
from vitresnas.search.run import run as search
from vitresnas.search.timing import example_images
from vitresnas.space import SearchSpace
from vitresnas.train.recipe import TIMM
from vitresnas.train.result import TrainingResult
from vitresnas.train.run import run as train

FOUND, RANDOM = "found", "random"
_SIGMAS = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Contestant:
    """architecture: as a recipe names it. cost: MACs of an image, parameters."""

    name: str
    what: str
    architecture: str
    module: nn.Module
    network: JsonObject
    macs: int
    parameters: int
    search: JsonObject | None = None  # how it was found


def compare(request: Request, data: Data, space: SearchSpace) -> JsonObject:
    """Search, match, time and retrain; what is done already is read. One row per contestant."""
    if TrainingResult.load(request.supernet) is None:
        raise InputError(
            f"{request.supernet} holds no finished super-network: run the same command with "
            "--stage supernet first"
        )
    table = _table(request, space)
    found = _searched(request, FOUND, request.strategy, request.candidates)
    # As many as the search's image evaluations pay for; a race spends fewer than its candidates.
    draws = math.ceil(found.evaluated_images / len(data.holdout))
    drawn = _searched(request, RANDOM, "random", draws)
    contestants = [
        _of_search(request, FOUND, f"found by --strategy {request.strategy}", found),
        _of_search(request, RANDOM, "the best of as many uniform draws", drawn),
    ]
    clock = _clock(request, table, space)
    contestants += _designed(request, space, table, contestants[0], clock)
    speeds = _speeds(request, table, contestants, clock)
    plan = _plan(request, data, contestants)
    rows = [_row(request, one, speeds[one.name], plan, data) for one in contestants]
    return {
        "target": dict(found.target),
        "tolerance_percent": 100 * TOLERANCE,
        "retraining": request.retraining("").to_json(),
        "planned_seconds": plan["equal_seconds"],
        "used_seconds": {
            "least": min(row["used_seconds"] for row in rows),
            "most": max(row["used_seconds"] for row in rows),
        },
        "contestants": rows,
    }


def _table(request: Request, space: SearchSpace) -> LatencyTable:
    if not request.table.exists():
        asked = TableRequest(
            device=request.device,
            dtype=request.dtype,
            batch_size=request.batch_size,
            runtime=request.runtime,
            threads=request.threads,
            seconds=request.table_seconds,
        )
        build_table(space, asked, request.table)
    return load_tables(request.table)[0]


def _searched(request: Request, name: str, strategy: str, candidates: int | None) -> SearchResult:
    assert request.throughput_target is not None, "the door asks for one"
    say(f"{name}: searching with {strategy}")
    recipe = request.supernet_recipe()
    asked = SearchRequest(
        target=Target.parse(request.throughput_target),
        space=recipe.space,
        data=recipe.data,
        supernet=request.supernet,
        latency_table=request.table,
        # Told once more, so that a table of another condition, left there before, is refused.
        batch_size=request.batch_size,
        dtype=request.dtype,
        runtime=request.runtime,
        threads=request.threads,
        device=request.device,
        strategy=strategy,
        candidates=candidates,
        seed=request.seed,
        out=request.out / name,
        proof_seconds=request.proof_seconds,
    )
    return search(asked)


def _of_search(request: Request, name: str, what: str, result: SearchResult) -> Contestant:
    best = result.best.candidate
    return Contestant(
        name=name,
        what=what,
        architecture=str(request.out / name / ARCHITECTURE),
        module=create_model(best.architecture),
        network={"id": best.id, "architecture": best.architecture.to_json()},
        macs=best.macs,
        parameters=best.parameters,
        search={
            "verdict": result.verdict,
            "candidates": len(result.history),
            "evaluated_images": result.evaluated_images,
            "inherited_holdout_negative_log_likelihood": best.score.negative_log_likelihood,
            "inherited_test_accuracy": result.test_accuracy,
            "settings": dict(result.settings),
        },
    )


def _clock(request: Request, table: LatencyTable, space: SearchSpace) -> Clock:
    """Networks side by side, as a search's proof times its finalists."""
    condition, device = table.condition, resolve_device(request.device)
    images_BCHW = example_images(space.largest, condition.batch_size, device)

    def clock(networks: Mapping[str, nn.Module], rounds: int | None) -> dict[str, Measurement]:
        timed = partial(
            time_interleaved,
            networks,
            images_BCHW,
            runtime=condition.runtime,
            dtype=condition.dtype,
            seconds=request.proof_seconds,
        )
        with threads(condition.threads):
            if rounds is None:
                return timed()
            return timed(minimum_rounds=rounds, maximum_rounds=rounds)

    return clock


def _designed(
    request: Request, space: SearchSpace, table: LatencyTable, reference: Contestant, clock: Clock
) -> list[Contestant]:
    """The network of each family that is as fast as the one found; sized once."""
    families = [FAMILIES[name] for name in request.designed]
    asked = {
        "reference": reference.network["id"],
        "condition": table.condition.to_json(),
        "families": list(request.designed),
    }
    found = decided(
        request.out / "matching.json",
        "against_designed_matching",
        asked,
        lambda: {"families": match(families, space, reference.module, clock, say)},
    )["families"]
    contestants = []
    for family in families:
        network = TimmNetwork.from_json(found[family.name]["network"], "matching.json")
        path = request.out / f"{family.name}.json"
        network.save(path)
        cost = network.cost(space.classes)
        contestants.append(
            Contestant(
                name=family.name,
                what=family.what,
                architecture=f"{TIMM}{path}",
                module=network.create(space.classes),
                network={"id": network.id, "timm_network": network.to_json()},
                macs=cost.macs,
                parameters=cost.parameters,
            )
        )
    return contestants


def _speeds(
    request: Request, table: LatencyTable, contestants: list[Contestant], clock: Clock
) -> JsonObject:
    """All side by side once more: what chose the shapes cannot judge how well they were chosen."""

    def decide() -> JsonObject:
        say(f"timing {', '.join(one.name for one in contestants)}")
        times = clock({one.name: one.module for one in contestants}, None)
        reference, batch = times[FOUND], table.condition.batch_size
        return {
            "speeds": {
                name: {
                    **asdict(speed_of(time, reference, batch)),
                    "samples_milliseconds": list(time.samples_milliseconds),
                }
                for name, time in times.items()
            }
        }

    asked = {
        "networks": {one.name: one.network["id"] for one in contestants},
        "condition": table.condition.to_json(),
    }
    path = request.out / "throughput.json"
    speeds: JsonObject = decided(path, "against_designed_throughput", asked, decide)["speeds"]
    return speeds


def _plan(request: Request, data: Data, contestants: list[Contestant]) -> JsonObject:
    """Equal seconds, and the epochs that each one gets for them by its own measured speed.

    Without --retrain-hours: as long as the network found takes for the recipe's own epochs.
    """
    recipes = {one.name: request.retraining(one.architecture) for one in contestants}

    def decide() -> JsonObject:
        seconds = seconds_per_epoch(recipes, data, request.device, request.workers)
        hours = request.retrain_hours or recipes[FOUND].epochs * seconds[FOUND] / 3600
        equal, epochs = equal_epochs(seconds, hours)
        return {"seconds_per_epoch": seconds, "equal_seconds": equal, "epochs": epochs}

    asked = {
        "recipe": request.retraining("").to_json(),
        "networks": {one.name: one.network["id"] for one in contestants},
        "hours": request.retrain_hours,
        "data": data.id,
    }
    return decided(request.out / "retraining.json", "against_designed_retraining", asked, decide)


def _row(
    request: Request, one: Contestant, speed: JsonObject, plan: JsonObject, data: Data
) -> JsonObject:
    """Retrain it, and tell everything about it."""
    epochs = plan["epochs"][one.name]
    recipe = looked_at(request.retraining(one.architecture).stretched(epochs))
    recipe = replace(recipe, name=f"{recipe.name} {one.name}")
    out = request.out / "retrained" / one.name
    say(f"{one.name}: retraining, {epochs} epochs")
    result = train(recipe, out, device=request.device, workers=request.workers)
    holdout, test = result.holdout["network"], result.test["network"]
    per_epoch = plan["seconds_per_epoch"][one.name]
    return {
        "contestant": one.name,
        "what": one.what,
        **one.network,
        "macs": one.macs,
        "parameters": one.parameters,
        "images_per_second": speed["images_per_second"],
        "interval_95": list(speed["interval_95"]),
        "relative": speed["relative"],
        "relative_interval_95": list(speed["relative_interval_95"]),
        "within_tolerance": abs(speed["relative"] - 1) <= TOLERANCE,
        "samples_milliseconds": speed["samples_milliseconds"],
        "epochs": epochs,
        "seconds_per_epoch": per_epoch,
        "planned_seconds": epochs * per_epoch,
        "used_seconds": result.seconds,
        "holdout_negative_log_likelihood": holdout["negative_log_likelihood"],
        "holdout_accuracy": holdout["accuracy"],
        "test_negative_log_likelihood": test["negative_log_likelihood"],
        "test_accuracy": test["accuracy"],
        "test_accuracy_interval_95": wilson(test["accuracy"], len(data.test)),
        "curve": curve(out, "network"),
        "search": one.search,
    }


def wilson(share: float, count: int) -> list[float]:
    """95 % interval of a share of so many images (Wilson, 1927): of this test set, not of seeds."""
    square = _SIGMAS**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _SIGMAS * math.sqrt((share * (1 - share) + square / 4) / count) / (1 + square)
    return [middle - half, middle + half]
