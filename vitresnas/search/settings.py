"""What makes two commands the same search, and the folder that holds one search only."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from vitresnas.data import Data
from vitresnas.data.image_set import SCORING_BATCH
from vitresnas.errors import MismatchError
from vitresnas.files import JsonObject, digest, flattened, read_json, write_json
from vitresnas.latency.request import device_name
from vitresnas.models.weights import sha256
from vitresnas.search.job import Job, SearchRequest
from vitresnas.search.strategies import describe
from vitresnas.space import SearchSpace
from vitresnas.supernet.directory import WEIGHTS

KIND = "search_settings"
SETTINGS = "search_settings.json"


def check_folder(out: Path, settings: JsonObject) -> None:
    """Raise MismatchError where `out` holds a search that differs in one of these settings."""
    if not (out / SETTINGS).exists():
        return
    found = flattened(read_json(out / SETTINGS, KIND))
    for name, value in flattened(settings).items():
        if found.get(name) != value:
            raise MismatchError(
                f"{out} holds a search with {name} {found.get(name)!r}, this command's is "
                f"{value!r}: choose another --out, or repeat the command that began it"
            )


def claim_folder(out: Path, settings: JsonObject) -> None:
    """Write down what `out` searches, or check that it is this. Raises MismatchError."""
    check_folder(out, settings)
    if not (out / SETTINGS).exists():
        write_json(out / SETTINGS, KIND, settings)
        return
    theirs = flattened(read_json(out / SETTINGS, KIND))
    if more := sorted(theirs.keys() - flattened(settings).keys() - {"schema", "checksum"}):
        raise MismatchError(
            f"{out} holds a search with {', '.join(more)}, which this command does not ask for: "
            "choose another --out, or repeat the command that began it"
        )


def early_settings(request: SearchRequest) -> JsonObject:
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


def settings_of(job: Job, context: JsonObject) -> JsonObject:
    """Everything that decides history and verdict; big things by digest."""
    request, condition = job.request, job.table.condition
    early = early_settings(request)
    early["strategy"] = describe(job.strategy)
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


def scores_depend_on(space: SearchSpace, data: Data, supernet_path: Path) -> JsonObject:
    """The context of the evaluation log; big things by digest."""
    return {
        "space": {"name": space.name, "id": space.id},
        "data": {"name": data.name, "id": data.id},
        "supernet": sha256((supernet_path / WEIGHTS).read_bytes())[:16],
        "scoring_batch_size": SCORING_BATCH,
    }
