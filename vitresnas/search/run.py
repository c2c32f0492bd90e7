"""One search from request to files: data, table, super-network, search, proof, model, picture."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vitresnas.cache import locked
from vitresnas.data import Data, load_data
from vitresnas.doors import say
from vitresnas.errors import UnreachableTarget
from vitresnas.files import JsonObject, digest, read_json, storage_errors
from vitresnas.latency import LatencyTable, load_tables, select_table
from vitresnas.latency.environment import describe_environment
from vitresnas.latency.request import Request as LatencyRequest
from vitresnas.latency.request import device_name, resolve_device
from vitresnas.models.model_directory import save_model
from vitresnas.search.constraint import Constraint, Target
from vitresnas.search.engine import Session
from vitresnas.search.evaluate import EvaluationLog
from vitresnas.search.evolution import Evolution
from vitresnas.search.picture import draw
from vitresnas.search.prepare import Training, prepare_supernet, prepare_table
from vitresnas.search.prices import TablePrices
from vitresnas.search.progress import Watch
from vitresnas.search.prove import FINALISTS, Proof, prove
from vitresnas.search.reach import Reach, throughput_reach
from vitresnas.search.result import SearchResult
from vitresnas.search.score import SCORING_BATCH, SupernetScorer, score_model
from vitresnas.search.settings import check_folder, claim_folder
from vitresnas.search.timing import SECONDS, extracted_timer, remembered
from vitresnas.space import SearchSpace, load_space
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import CARD, WEIGHTS, load_supernet

RESULT, ARCHITECTURE, MODEL = "search_result.json", "architecture.json", "model"
PICTURE, LOG, PROOF_LOG = "search.png", "evaluations.jsonl", "proof.jsonl"
STRATEGIES = {Evolution.name: Evolution.for_space}

TrainingFor = Callable[[str, str | None], Training]


@dataclass(frozen=True)
class SearchRequest:
    """What a user asks for. None leaves a choice to the table, the data or this machine."""

    target: Target
    space: str = "digits"
    data: str | None = None
    supernet: Path | None = None
    latency_table: Path | None = None
    batch_size: int | None = None
    dtype: str | None = None
    runtime: str | None = None
    threads: int | None = None
    device: str = "auto"
    strategy: str = Evolution.name
    constraints: tuple[Constraint, ...] = ()
    seed: int = 0
    out: Path = Path("runs/search")
    accept_foreign_table: bool = False


@dataclass(frozen=True)
class Job:
    """A request with everything it needs at hand."""

    request: SearchRequest
    space: SearchSpace
    data: Data
    prices: TablePrices
    reach: Reach
    device: str
    foreign: bool  # the table is of another device, so nothing can be proved here
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def table(self) -> LatencyTable:
        return self.prices.table

    @property
    def predicted_largest(self) -> float:
        return self.prices.images_per_second(self.space.largest)

    @property
    def bound(self) -> float:
        """The least prediction, in images per second, that admits a network."""
        return self.request.target.images_per_second(self.predicted_largest)


def run(request: SearchRequest, training_for: TrainingFor) -> SearchResult:
    """Search, prove and write; a search that is finished is read, one that was cut short goes on.

    training_for: (space, data) as the user typed them -> how to train a super-network for them.
    Raises UnreachableTarget, MismatchError (table, super-network or folder of something else) and
    the errors of data, table and super-network.
    """
    seconds: dict[str, float] = {}
    check_folder(request.out, _early_settings(request))
    with _phase(seconds, "data"):
        space = load_space(request.space)
        data = load_data(request.data, image_size=space.image_size)
        space = space.with_data(classes=len(data.class_names))
    job = _price(request, space, data, seconds)
    supernet_path = request.supernet
    if supernet_path is None:
        with _phase(seconds, "supernet"):
            training = training_for(request.space, request.data)
            supernet_path = prepare_supernet(training, space, data.id)
    supernet = load_supernet(supernet_path, space=space, device=job.device)
    _warn_of_other_data(supernet_path, data)
    settings = _settings(job, supernet_path)
    with storage_errors(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
    with locked(request.out):
        claim_folder(request.out, settings)
        if (request.out / RESULT).exists():
            say(f"{request.out} holds this search, finished: nothing was done again")
            return SearchResult.load(request.out / RESULT)
        result = _search_and_prove(job, supernet, settings)
        return _write(job, supernet, result)


def files_written(out: Path) -> dict[str, str]:
    """The files of a finished search by what they are."""
    names = {
        "result": RESULT,
        "architecture": ARCHITECTURE,
        "model": MODEL,
        "picture": PICTURE,
        "log": LOG,
    }
    return {what: str(out / name) for what, name in names.items() if (out / name).exists()}


def _price(
    request: SearchRequest, space: SearchSpace, data: Data, seconds: dict[str, float]
) -> Job:
    """Find or measure the table, and refuse a target that it says nothing can reach."""
    device = resolve_device(request.device)
    foreign = False
    if request.latency_table is None:
        with _phase(seconds, "latency_table"):
            table = prepare_table(space, _latency_request(request))
    else:
        here = device_name(device)
        table = select_table(
            load_tables(request.latency_table),
            batch_size=request.batch_size,
            dtype=request.dtype,
            runtime=request.runtime,
            threads=request.threads,
            device=None if request.accept_foreign_table else here,
            space_id=space.id,
            where=str(request.latency_table),
        )
        foreign = table.condition.device != here
    prices = TablePrices(table)
    job = Job(request, space, data, prices, throughput_reach(space, prices), device, foreign)
    job.seconds.update(seconds)
    _check_target(job)
    return job


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
    if job.foreign:
        say(
            f"warning: the latency table is of {condition.device}, not of this machine: "
            'nothing will be timed and the verdict stays "unproven"; '
            "run `vitresnas verify` on the model there"
        )


def _search_and_prove(job: Job, supernet: Supernet, settings: JsonObject) -> SearchResult:
    request, out = job.request, job.request.out
    context = {name: settings[name] for name in ("supernet", "data", "scoring_batch_size")}
    session = Session(
        space=job.space,
        score=SupernetScorer(supernet, job.data.holdout),
        constraints=(Constraint("throughput", job.bound), *request.constraints),
        throughput=job.prices,
        strategy=STRATEGIES[request.strategy](job.space),
        seed=request.seed,
        log=EvaluationLog(out / LOG, context),
    )
    with _phase(job.seconds, "search"):
        with Watch("scoring", session.budget) as watch:
            session.progress = watch
            result = session.run()
        say(
            f"scored {len(result.history)} candidates; best {result.selected.candidate.id}: "
            f"negative log-likelihood {result.selected.candidate.score.negative_log_likelihood:.4f}"
        )
    result = replace(result, target=_target_json(job), settings=settings)
    if job.foreign:
        return result
    with _phase(job.seconds, "proof"), Watch("timing", round(SECONDS), "s") as watch:
        timer = extracted_timer(
            supernet, job.table.condition, job.device, on_round=lambda _, spent: watch(round(spent))
        )
        proof = Proof(
            target=request.target,
            batch_size=job.table.condition.batch_size,
            predicted_largest=job.predicted_largest,
            predicted_fastest=job.reach.maximum,
            timer=remembered(timer, out / PROOF_LOG),
            search_on=_search_on(session),
            report=say,
        )
        say(f"timing {FINALISTS} finalists beside the largest network")
        return prove(result, proof)


def _search_on(session: Session) -> Callable[..., Any]:
    def search_on(number: int, bound: float, seen: Sequence[Any]) -> Any:
        session.progress = lambda _: None
        tighter = (Constraint("throughput", bound), *session.constraints[1:])
        return session.round(number, tighter, seen)

    return search_on


def _write(job: Job, supernet: Supernet, result: SearchResult) -> SearchResult:
    """Everything into the folder; the result comes last and says that all is there."""
    out, best = job.request.out, result.best
    with _phase(job.seconds, "write"):
        model = supernet.extract(best.candidate.architecture)
        test = score_model(model, job.data.test)
        holdout = score_model(model, job.data.holdout)
        environment = describe_environment()
        card = {
            "kind": "sub-network with inherited weights",
            "verdict": result.verdict,
            "target": dict(result.target),
            "speed": best.speed and asdict(best.speed),
            "predicted_images_per_second": best.candidate.predicted_images_per_second,
            "holdout": asdict(holdout),
            "test": asdict(test),
            "data": {"name": job.data.name, "id": job.data.id},
            "class_names": list(job.data.class_names),
            "largest": job.space.largest.to_json(),
            "search": dict(result.settings),
            "environment": environment,
        }
        save_model(model, out / MODEL, card)
        best.candidate.architecture.save(out / ARCHITECTURE)
        result = replace(result, test_accuracy=test.accuracy, environment=environment)
        draw(result, out / PICTURE)
    job.seconds["total"] = sum(job.seconds.values())
    rounded = {name: round(value, 2) for name, value in job.seconds.items()}
    result = replace(result, seconds=rounded)
    result.save(out / RESULT)
    return result


def _target_json(job: Job) -> JsonObject:
    target, condition = job.request.target, job.table.condition
    return {
        "images_per_second": job.bound,
        "requested": str(target),
        "amount": target.amount,
        "relative": target.relative,
        "batch_size": condition.batch_size,
        "dtype": condition.dtype,
        "runtime": condition.runtime,
        "threads": condition.threads,
        "device": condition.device,
    }


def _early_settings(request: SearchRequest) -> JsonObject:
    """The settings that are known before anything is loaded."""
    return {
        "target": str(request.target),
        "constraints": {found.name: found.bound for found in request.constraints},
        "seed": request.seed,
        "strategy": {"name": request.strategy},
    }


def _settings(job: Job, supernet_path: Path) -> JsonObject:
    """Everything that decides history and verdict; big things by digest."""
    request, condition = job.request, job.table.condition
    weights = hashlib.sha256((supernet_path / WEIGHTS).read_bytes()).hexdigest()
    strategy = STRATEGIES[request.strategy](job.space)
    early = _early_settings(request)
    early["strategy"] = {**early["strategy"], **asdict(strategy)}
    return {
        **early,
        "space": {"name": job.space.name, "id": job.space.id},
        "data": {"name": job.data.name, "id": job.data.id},
        "supernet": weights[:16],
        "latency_table": digest(job.table.to_json())[:16],
        "batch_size": condition.batch_size,
        "dtype": condition.dtype,
        "runtime": condition.runtime,
        "threads": condition.threads,
        "table_device": condition.device,
        "device": device_name(job.device),
        "scoring_batch_size": SCORING_BATCH,
        "version": version("vitresnas"),
    }


def _latency_request(request: SearchRequest) -> LatencyRequest:
    return LatencyRequest(
        device=request.device,
        dtype=request.dtype or "fp32",
        batch_size=request.batch_size,
        runtime=request.runtime or "eager",
        threads=request.threads,
    )


def _warn_of_other_data(path: Path, data: Data) -> None:
    trained_on = read_json(path / CARD, "supernet_card").get("data")
    if isinstance(trained_on, dict) and trained_on.get("id") != data.id:
        say(
            f"warning: the super-network in {path} was trained on other images or another split "
            f"({trained_on.get('name')}, {trained_on.get('id')}) than {data.name} ({data.id}): "
            "it may have seen the hold-out that scores it"
        )


@contextmanager
def _phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - begin
