"""From request to result: a super-network, networks spread over its space, trainings, ranks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import cast

from torch import Tensor

from vitresnas.data import Data, load_data
from vitresnas.doors import say
from vitresnas.errors import InputError
from vitresnas.fidelity.alone import Trained, Trainings, alone, architecture_file, recipe_of
from vitresnas.fidelity.exposure import Probes, exposures, influences
from vitresnas.fidelity.picture import draw
from vitresnas.fidelity.request import FidelityRequest, trainings
from vitresnas.fidelity.result import FidelityResult, Network
from vitresnas.fidelity.score import Scores, score
from vitresnas.fidelity.workers import spread
from vitresnas.files import JsonObject, append_line, read_lines
from vitresnas.latency.cores import cores
from vitresnas.latency.environment import describe_environment
from vitresnas.latency.networks import spaced_networks
from vitresnas.latency.request import resolve_device
from vitresnas.models.weights import digest_of
from vitresnas.progress import Progress
from vitresnas.search.prepare import allowed_unreadable, prepare_supernet
from vitresnas.space import Architecture, load_space, macs
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import load_supernet, read_card, refuse_other_data
from vitresnas.supernet.sampling import draw_architectures
from vitresnas.train.recipe import Recipe
from vitresnas.train.run_folder import claim, only_process
from vitresnas.training_for_search import supernet_training

PROBES = 60
RESULT, PICTURE, LOG, NETWORKS = "fidelity.json", "fidelity.png", "trained.jsonl", "architectures"


def run(request: FidelityRequest) -> FidelityResult:
    """Train what is not trained yet, and compare; a run that was cut short goes on.

    Raises InputError, MismatchError (`out` or the super-network belongs to something else),
    DataError, TrainingDiverged, StorageError.
    """
    began = time.monotonic()
    device = resolve_device(request.device)
    supernet, recipe, data = _supernet(request, device)
    prepared = time.monotonic() - began
    networks = spaced_networks(
        supernet.space, lambda found: float(macs(found)), request.networks, Random(request.seed)
    )
    out = request.out
    with only_process(out):
        settings = _settings(request, supernet, recipe, data)
        claim(out, settings)
        for network in networks:
            path = architecture_file(out / NETWORKS, network)
            if not path.exists():
                network.save(path)
        inherited = {network.id: _inherited(supernet, network, data) for network in networks}
        probes = _probes(supernet, request, data)
        steps = max(1, len(data.train) // recipe.batch_size)
        trained = _train(request, networks, recipe, data, device)
        result = FidelityResult(
            tuple(Network(found, inherited[found.id], trained[found.id]) for found in networks),
            exposures(supernet.space, recipe, steps, probes),
            influences(probes),
            settings,
            describe_environment(),
            {
                "supernet": round(prepared, 2),
                "training": round(sum(t.seconds for each in trained.values() for t in each), 2),
                "total": round(time.monotonic() - began, 2),
            },
        )
        draw(result, out / PICTURE)
        result.save(out / RESULT)
    return result


def _supernet(request: FidelityRequest, device: str) -> tuple[Supernet, Recipe, Data]:
    """The super-network asked for, or the one that a search would train; its recipe; its data."""
    if request.supernet is not None:
        path = request.supernet
        supernet = load_supernet(path, device=device)
        allowed = allowed_unreadable(path)
        size = supernet.space.image_size
        data = load_data(request.data, image_size=size, unreadable_share=allowed)
    else:
        space = load_space(request.space)
        # As a search shapes it, so that both share one in the cache.
        training = supernet_training(request.space, request.data, device)
        data = load_data(request.data, image_size=space.image_size)
        space = space.with_data(classes=len(data.class_names))
        path = prepare_supernet(training, space, data.id, device)
        supernet = load_supernet(path, space=space, device=device)
    refuse_other_data(path, data.name, data.id)
    found = recipe_of(read_card(path))
    if found is None:
        raise InputError(
            f"the super-network in {path} does not record how it was trained, so its networks "
            "cannot be trained the same way: train one with `vitresnas train`"
        )
    return supernet, found, data


def _settings(
    request: FidelityRequest, supernet: Supernet, recipe: Recipe, data: Data
) -> JsonObject:
    """Everything that decides a result."""
    return {
        "space": {"name": supernet.space.name, "id": supernet.space.id},
        "data": {"name": data.name, "id": data.id},
        "supernet": digest_of(supernet.network.state_dict())[:16],
        "recipe": recipe.name,
        "networks": request.networks,
        "epochs": request.epochs,
        "repeats": request.repeats,
        "seeds": request.seeds,
        "seed": request.seed,
        "version": version("vitresnas"),
    }


def _inherited(supernet: Supernet, network: Architecture, data: Data) -> Scores:
    device = next(supernet.parameters()).device
    return score(
        lambda images_BCHW: cast(Tensor, supernet(images_BCHW, (network,))), data.holdout.to(device)
    )


def _probes(supernet: Supernet, request: FidelityRequest, data: Data) -> Probes:
    """Networks that use every choice about equally often, with their inherited scores."""
    drawn = draw_architectures(supernet.space, PROBES, Random(request.seed))
    with Progress("scoring", PROBES, unit="networks") as progress:
        found = {}
        for number, architecture in enumerate(drawn, 1):
            found[architecture] = _inherited(supernet, architecture, data)
            progress(number)
    return found


def _train(
    request: FidelityRequest,
    networks: tuple[Architecture, ...],
    recipe: Recipe,
    data: Data,
    device: str,
) -> Mapping[str, tuple[Trained, ...]]:
    """What every training ended with, by network; those in the log are not repeated."""
    log = request.out / LOG
    known = {
        (found.architecture_id, found.seed): found
        for found in (Trained.from_json(line, str(log)) for line in read_lines(log))
    }
    jobs = sorted(trainings(networks, request), key=lambda job: job.key not in known)
    left = [job for job in jobs if job.key not in known]
    workers = request.workers or (1 if device.startswith("cuda") else cores())
    shared = Trainings(
        alone(recipe, request.epochs),
        request.data,
        data.image_size,
        request.out / NETWORKS,
        device,
        workers,
    )
    if known:
        say(f"{len(jobs) - len(left)} of {len(jobs)} trainings are in {log}: resuming")
    work = {job.key: job.work for job in jobs}
    total, done = sum(work.values()), len(jobs) - len(left)
    behind = total - sum(job.work for job in left)
    with Progress("fidelity", total, behind) as progress:
        for found in spread(shared.train, left, workers):
            append_line(log, found.to_json())
            key = (found.architecture_id, found.seed)
            known[key] = found
            progress.add(work[key])
            done += 1
            progress.tell(f"{done} of {len(jobs)} trainings", always=done == len(jobs))
    by_network: dict[str, list[Trained]] = defaultdict(list)
    for job in sorted(jobs, key=lambda job: job.seed):
        by_network[job.architecture.id].append(known[job.key])
    return {identifier: tuple(found) for identifier, found in by_network.items()}


def files_written(out: Path) -> dict[str, str]:
    """The files of a finished report by what they are."""
    names = {"result": RESULT, "picture": PICTURE, "log": LOG, "networks": NETWORKS}
    return {what: str(out / name) for what, name in names.items()}
