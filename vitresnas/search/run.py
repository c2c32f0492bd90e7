"""One search from request to files: data, table, super-network, search, proof, model, picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch

from vitresnas.cache import locked
from vitresnas.data import Data, load_data
from vitresnas.data.evaluate import evaluate_model
from vitresnas.data.image_set import SCORING_BATCH
from vitresnas.doors import Rank, say
from vitresnas.errors import InputError, MismatchError
from vitresnas.files import JsonObject, digest, storage_errors
from vitresnas.latency.compared import ExistingModel
from vitresnas.latency.cores import threads
from vitresnas.latency.environment import describe_environment
from vitresnas.latency.request import device_name
from vitresnas.models.model_directory import load_model, save_model
from vitresnas.models.weights import sha256
from vitresnas.progress import Progress
from vitresnas.search.candidate import Candidate, Finalist
from vitresnas.search.check import check
from vitresnas.search.engine import Session
from vitresnas.search.fine_tune import Tune, fine_tune
from vitresnas.search.job import Job, SearchRequest, create_job, phase
from vitresnas.search.log import EvaluationLog
from vitresnas.search.measured import measurer
from vitresnas.search.parts import Parts
from vitresnas.search.per_class import per_class
from vitresnas.search.picture import draw
from vitresnas.search.prepare import Training, allowed_unreadable, prepare_supernet
from vitresnas.search.prove import FINALISTS, Proof, SearchOn, counted, prove
from vitresnas.search.result import RESULT, SearchResult
from vitresnas.search.score import SupernetScorer, score_model, score_of
from vitresnas.search.settings import SETTINGS, check_folder, claim_folder
from vitresnas.search.strategies import check_strategy, create_strategy, describe
from vitresnas.search.strategy import Strategy
from vitresnas.search.timing import extracted_timer, remembered
from vitresnas.search.workers import Scorer, Workers, serve
from vitresnas.space import SearchSpace, load_space
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import WEIGHTS, load_supernet, refuse_other_data

ARCHITECTURE, MODEL = "architecture.json", "model"
PICTURE, LOG, TUNED = "search.png", "evaluations.jsonl", "fine_tuned"
PROOF_LOG, BATCH_1_LOG = "proof.jsonl", "proof_batch_1.jsonl"

TrainingFor = Callable[[str, str | None, str], Training]


def run(
    request: SearchRequest,
    training_for: TrainingFor | None = None,
    workers: Workers | None = None,
    tune: Tune | None = None,
) -> SearchResult:
    """Search, prove and write; a search that is finished is read, one that was cut short goes on.

    training_for: (space, data) as the user typed them and the device -> how to train a
    super-network for them; needed where the request names none.
    workers: other processes that score, see `serve_search`. tune: how a finalist is trained
    further, where the request asks for that.
    Raises UnreachableTarget, MismatchError (table, super-network or folder of something else) and
    the errors of data, table and super-network.
    """
    workers = workers or Workers()
    check_strategy(request.strategy, request.objectives, 1 + len(workers))
    check_folder(request.out, _early_settings(request))
    job = create_job(request)
    supernet_path = request.supernet
    if supernet_path is None:
        if training_for is None:
            raise InputError("no super-network is given, nor how to train one: name its folder")
        with phase(job.seconds, "supernet"):
            training = training_for(request.space, request.data, job.device)
            supernet_path = prepare_supernet(training, job.space, job.data.id, job.device)
    supernet = load_supernet(supernet_path, space=job.space, device=job.device)
    refuse_other_data(supernet_path, job.data.name, job.data.id)
    context = scores_depend_on(job.space, job.data, supernet_path)
    settings = _settings(job, context)
    with storage_errors(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
    with locked(request.out):
        finished = _read_finished(request.out)
        claim_folder(request.out, settings)
        if finished:
            say(f"{request.out} already holds this search, finished: nothing to do")
            return finished
        result = _search_and_prove(job, supernet, supernet_path, context, settings, workers)
        if request.finetune.top and tune:
            with phase(job.seconds, "fine_tuning"):
                folder = request.out / TUNED
                result = fine_tune(
                    result, request.finetune.top, tune, supernet_path, job.data, folder, job.device
                )
        return _write(job, supernet, result)


def files_written(out: Path) -> dict[str, str]:
    """The files of a finished search by what they are, but for a log that the user named."""
    names = {
        "result": RESULT,
        "architecture": ARCHITECTURE,
        "model": MODEL,
        "picture": PICTURE,
        "log": LOG,
    }
    return {what: str(out / name) for what, name in names.items() if (out / name).exists()}


def _read_finished(out: Path) -> SearchResult | None:
    if not (out / RESULT).exists():
        return None
    if not (out / SETTINGS).exists():
        raise MismatchError(
            f"{out} holds a {RESULT} without its {SETTINGS}, so it cannot be told whether it is "
            "this search: choose another --out"
        )
    return SearchResult.load(out / RESULT)


def serve_search() -> int:
    """What another process of a torchrun does: score what rank 0 asks for, and write nothing."""

    def prepare(task: JsonObject) -> tuple[Scorer, JsonObject]:
        space = load_space(task["space"])
        allowed = allowed_unreadable(task["supernet"])
        data = load_data(task["data"], image_size=space.image_size, unreadable_share=allowed)
        space = space.with_data(classes=len(data.class_names))
        device = task["device"]
        if device.startswith("cuda"):
            device = f"cuda:{Rank.here().local_rank % torch.cuda.device_count()}"
        torch.set_num_threads(1)
        supernet = load_supernet(Path(task["supernet"]), space=space, device=device)
        scorer = SupernetScorer(supernet, data.holdout)
        return scorer, scores_depend_on(space, data, Path(task["supernet"]))

    return serve(prepare)


def scores_depend_on(space: SearchSpace, data: Data, supernet_path: Path) -> JsonObject:
    """The context of the evaluation log; big things by digest."""
    return {
        "space": {"name": space.name, "id": space.id},
        "data": {"name": data.name, "id": data.id},
        "supernet": sha256((supernet_path / WEIGHTS).read_bytes())[:16],
        "scoring_batch_size": SCORING_BATCH,
    }


def _search_and_prove(
    job: Job,
    supernet: Supernet,
    supernet_path: Path,
    context: JsonObject,
    settings: JsonObject,
    workers: Workers,
) -> SearchResult:
    request, out = job.request, job.request.out
    task = {"space": request.space, "data": request.data, "device": job.device}
    workers.prepare({**task, "supernet": str(supernet_path)}, context)
    log = request.log or out / LOG
    with threads(1):  # as for the scores: the trunk's features must not depend on threads either
        scorer = SupernetScorer(supernet, job.data.holdout)
    # Two networks on a thread each finish before two threads on one network then another: no
    # waiting inside layers. And a score does not depend on how many threads there are.
    slots = torch.get_num_threads() if job.device == "cpu" and not workers else 1
    session = Session(
        space=job.space,
        score=workers.join(scorer, slots),
        constraints=job.aims,
        throughput=job.prices,
        strategy=_strategy(job),
        seed=request.seed,
        log=EvaluationLog(log, context),
        # A race is run by this process alone: its passes are short.
        parts=Parts(scorer, log.with_suffix(".parts.jsonl"), context, workers=slots),
        workers=slots + len(workers),
    )
    with phase(job.seconds, "search"), threads(1):
        with Progress("scoring", session.budget, unit="candidates") as progress:
            session.progress = progress
            result = session.run()
        say(
            f"scored {len(result.history)} candidates; best {result.selected.candidate.id}: "
            f"negative log-likelihood {result.selected.candidate.score.negative_log_likelihood:.4f}"
        )
    result = replace(
        result,
        target=job.target_json(),
        settings=settings,
        compared=job.compare,
        table_difference=job.difference,
    )
    if job.foreign:
        return replace(result, best=_unmeasured(job, result.best))
    with phase(job.seconds, "proof"), Progress("timing") as progress:
        models = [one.model for one in job.compare]
        timer = extracted_timer(
            supernet,
            job.table.condition,
            job.device,
            models=models,
            seconds=request.proof_seconds,
            # Ten rounds are taken however long they last.
            on_round=lambda number, spent: progress(
                min(number / 10, spent / request.proof_seconds, 1.0)
            ),
        )
        proof = Proof(
            target=request.target,
            batch_size=job.table.condition.batch_size,
            predicted_largest=job.predicted_largest,
            predicted_fastest=job.reach.maximum,
            timer=remembered(timer, out / PROOF_LOG, models),
            search_on=_search_on(session),
            report=say,
            constraints=request.constraints,
            measure=measurer(
                [constraint.name for constraint in request.constraints],
                supernet,
                job.table.condition,
                job.device,
                seconds=request.proof_seconds,
                log=out / BATCH_1_LOG,
            ),
            compare=job.compare,
            settle=_settle(session),
            margin=job.margin,
        )
        say(f"timing {FINALISTS} finalists beside the largest network{_and(models)}")
        return prove(result, proof)


def _strategy(job: Job) -> Strategy:
    request = job.request
    return create_strategy(request.strategy, job.space, request.objectives, request.candidates)


def _and(models: Sequence[ExistingModel]) -> str:
    return f" and {', '.join(model.label for model in models)}" if models else ""


def _search_on(session: Session) -> SearchOn:
    def search_on(
        number: int, bounds: Mapping[str, float], seen: Sequence[Candidate]
    ) -> tuple[Candidate, ...]:
        session.progress = lambda _: None
        tighter = tuple(replace(one, bound=bounds[one.name]) for one in session.constraints)
        with threads(1):
            return session.round(number, tighter, seen)

    return search_on


def _settle(session: Session) -> Callable[[Candidate], Candidate]:
    def settle(found: Candidate) -> Candidate:
        with threads(1):
            return session.settle(found)

    return settle


def _unmeasured(job: Job, best: Finalist) -> Finalist:
    """The best with a check of each constraint; what only the table's device tells is open."""
    why = "not timed: the latency table is of another device"
    known = counted(best.candidate)
    checks = (
        check(one, best.candidate.cost(one.name), known.get(one.name, why))
        for one in job.constraints
    )
    return replace(best, checks=tuple(checks))


def _write(job: Job, supernet: Supernet, result: SearchResult) -> SearchResult:
    """Everything into the folder; the result comes last and says that all is there."""
    out, best = job.request.out, result.best
    with phase(job.seconds, "write"):
        model = supernet.extract(best.candidate.architecture)
        if result.fine_tuned:
            model = load_model(out / TUNED / best.candidate.id, job.device)
        test = evaluate_model(model, job.data.test)
        holdout = score_model(model, job.data.holdout)
        environment = describe_environment()
        card = {
            "kind": "sub-network"
            + (", fine-tuned" if result.fine_tuned else " with inherited weights"),
            "verdict": result.verdict,
            "target": dict(result.target),
            "speed": best.speed and asdict(best.speed),
            "checks": [found.to_json() for found in best.checks],
            "predicted_images_per_second": best.candidate.predicted_images_per_second,
            "holdout": asdict(holdout),
            "test": asdict(score_of(test)),
            "data": {
                "name": job.data.name,
                "id": job.data.id,
                "unreadable_share": job.data.train.unreadable_share,
            },
            "class_names": list(job.data.class_names),
            "largest": job.space.largest.to_json(),
            "compared": [found.to_json() for found in result.compared],
            "table_difference": [found.to_json() for found in result.table_difference],
            "search": dict(result.settings),
            "environment": environment,
        }
        save_model(model, out / MODEL, card)
        best.candidate.architecture.save(out / ARCHITECTURE)
        result = replace(
            result,
            test_accuracy=test.accuracy,
            environment=environment,
            per_class=per_class(result, test, supernet, job.data),
        )
        draw(result, out / PICTURE)
    job.seconds["total"] = sum(job.seconds.values())
    rounded = {name: round(value, 2) for name, value in job.seconds.items()}
    result = replace(result, seconds=rounded)
    result.save(out / RESULT)
    return result


def _early_settings(request: SearchRequest) -> JsonObject:
    """The settings that are known before anything is loaded."""
    return {
        "target": str(request.target),
        "constraints": [str(constraint) for constraint in request.constraints],
        "seed": request.seed,
        "strategy": {"name": request.strategy},
        # Absent where none are asked for: earlier folders know of none.
        **({"compare": list(request.compare)} if request.compare else {}),
        **({"margin": request.margin} if request.margin else {}),
        **({"finetune": asdict(request.finetune)} if request.finetune.top else {}),
    }


def _settings(job: Job, context: JsonObject) -> JsonObject:
    """Everything that decides history and verdict; big things by digest."""
    request, condition = job.request, job.table.condition
    early = _early_settings(request)
    early["strategy"] = describe(_strategy(job))
    return {
        **early,
        **context,
        "latency_table": digest(job.table.to_json())[:16],
        "batch_size": condition.batch_size,
        "dtype": condition.dtype,
        "runtime": condition.runtime,
        "threads": condition.threads,
        "table_device": condition.device,
        "device": device_name(job.device),
        "version": version("vitresnas"),
    }
