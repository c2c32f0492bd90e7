"""The folder of a search: the names of what lies in it, and what is written once all is known."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from vitresnas.data.evaluate import evaluate_model
from vitresnas.errors import MismatchError
from vitresnas.latency.environment import describe_environment
from vitresnas.models.model_directory import load_model, save_model
from vitresnas.search.job import Job, phase
from vitresnas.search.per_class import per_class
from vitresnas.search.picture import draw
from vitresnas.search.result import RESULT, SearchResult
from vitresnas.search.score import score_model, score_of
from vitresnas.search.settings import SETTINGS
from vitresnas.supernet import Supernet

ARCHITECTURE, MODEL = "architecture.json", "model"
PICTURE, LOG, TUNED = "search.png", "evaluations.jsonl", "fine_tuned"
PROOF_LOG, BATCH_1_LOG = "proof.jsonl", "proof_batch_1.jsonl"


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


def read_finished(out: Path) -> SearchResult | None:
    if not (out / RESULT).exists():
        return None
    if not (out / SETTINGS).exists():
        raise MismatchError(
            f"{out} holds a {RESULT} without its {SETTINGS}, so it cannot be told whether it is "
            "this search: choose another --out"
        )
    return SearchResult.load(out / RESULT)


def write_result(job: Job, supernet: Supernet, result: SearchResult) -> SearchResult:
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
