"""One search from request to files: data, table, super-network, search, proof, model, picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vitresnas.cache import locked
from vitresnas.doors import say
from vitresnas.errors import InputError
from vitresnas.files import JsonObject, storage_errors
from vitresnas.latency.compared import ExistingModel
from vitresnas.latency.cores import threads
from vitresnas.latency.request import resolve_device
from vitresnas.progress import Progress
from vitresnas.search.candidate import Candidate, Finalist
from vitresnas.search.check import check
from vitresnas.search.engine import Session
from vitresnas.search.fine_tune import Tune, fine_tune
from vitresnas.search.folder import BATCH_1_LOG, LOG, PROOF_LOG, TUNED, read_finished, write_result
from vitresnas.search.job import Job, SearchRequest, create_job, phase
from vitresnas.search.log import EvaluationLog
from vitresnas.search.measured import measurer
from vitresnas.search.parts import Parts
from vitresnas.search.prepare import Training, prepare_supernet
from vitresnas.search.prove import FINALISTS, Proof, SearchOn, counted, prove
from vitresnas.search.result import SearchResult
from vitresnas.search.score import SupernetScorer
from vitresnas.search.settings import (
    check_folder,
    claim_folder,
    early_settings,
    scores_depend_on,
    settings_of,
)
from vitresnas.search.strategies import check_strategy
from vitresnas.search.timing import extracted_timer, remembered
from vitresnas.search.workers import Workers
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import load_supernet

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
    workers: other processes that score, see serve.py. tune: how a finalist is trained
    further, where the request asks for that.
    Raises UnreachableTarget, MismatchError (table, super-network or folder of something else) and
    the errors of data, table and super-network.
    """
    workers = workers or Workers()
    check_strategy(request.strategy, request.objectives, 1 + len(workers))
    check_folder(request.out, early_settings(request))
    source = request.supernet or _training(request, training_for)
    job = create_job(request)
    supernet_path = _at_hand(job, source)
    supernet = load_supernet(supernet_path, space=job.space, device=job.device)
    context = scores_depend_on(job.space, job.data, supernet_path)
    settings = settings_of(job, context)
    with storage_errors(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
    with locked(request.out):
        finished = read_finished(request.out)
        claim_folder(request.out, settings)
        if finished:
            say(f"{request.out} already holds this search, finished: nothing to do")
            return finished
        session = _session(job, supernet, supernet_path, context, workers)
        result = replace(_searched(job, session), settings=settings)
        if job.foreign:
            result = replace(result, best=_unmeasured(job, result.best))
        else:
            result = _proved(job, session, supernet, result)
        if request.finetune.top and tune:
            with phase(job.seconds, "fine_tuning"):
                folder = request.out / TUNED
                result = fine_tune(
                    result, request.finetune.top, tune, supernet_path, job.data, folder, job.device
                )
        return write_result(job, supernet, result)


def _training(request: SearchRequest, training_for: TrainingFor | None) -> Training:
    """Asked for before anything is measured: where no recipe fits, that is told at once."""
    if training_for is None:
        raise InputError("no super-network is given, nor how to train one: name its folder")
    return training_for(request.space, request.data, resolve_device(request.device))


def _at_hand(job: Job, source: Path | Training) -> Path:
    """The super-network's folder; trained now where there is none."""
    if isinstance(source, Path):
        return source
    with phase(job.seconds, "supernet"):
        return prepare_supernet(source, job.space, job.data.id, job.device)


def _session(
    job: Job, supernet: Supernet, supernet_path: Path, context: JsonObject, workers: Workers
) -> Session:
    """The search, ready to run. context: what the scores in its log depend on."""
    request = job.request
    task = {"space": request.space, "data": request.data, "device": job.device}
    workers.prepare({**task, "supernet": str(supernet_path)}, context)
    log = request.log or request.out / LOG
    with threads(1):  # as for the scores: the trunk's features must not depend on threads either
        scorer = SupernetScorer(supernet, job.data.holdout)
    # Two networks on a thread each finish before two threads on one network then another: no
    # waiting inside layers. And a score does not depend on how many threads there are.
    slots = torch.get_num_threads() if job.device == "cpu" and not workers else 1
    return Session(
        space=job.space,
        score=workers.join(scorer, slots),
        constraints=job.aims,
        throughput=job.prices,
        strategy=job.strategy,
        seed=request.seed,
        log=EvaluationLog(log, context),
        # A race is run by this process alone: its passes are short.
        parts=Parts(scorer, log.with_suffix(".parts.jsonl"), context, workers=slots),
        workers=slots + len(workers),
    )


def _searched(job: Job, session: Session) -> SearchResult:
    with phase(job.seconds, "search"), threads(1):
        with Progress("scoring", session.budget, unit="candidates") as progress:
            session.progress = progress
            result = session.run()
        say(
            f"scored {len(result.history)} candidates; best {result.selected.candidate.id}: "
            f"negative log-likelihood {result.selected.candidate.score.negative_log_likelihood:.4f}"
        )
    return replace(
        result,
        target=job.target_json(),
        compared=job.compare,
        table_difference=job.difference,
    )


def _proved(job: Job, session: Session, supernet: Supernet, result: SearchResult) -> SearchResult:
    request, out = job.request, job.request.out
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
