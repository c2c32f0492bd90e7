"""The stages, each an existing command's function into a folder of its own, all resumable."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

from vitresnas.cache import locked
from vitresnas.doors import say
from vitresnas.files import Fields, read_json, storage_errors, write_json
from vitresnas.latency import LatencyTable, load_tables
from vitresnas.latency.build import build_table
from vitresnas.latency.request import Request as TableRequest
from vitresnas.models.model_directory import read_card
from vitresnas.progress import duration
from vitresnas.quickstart.plan import PLAN, SPACE, Plan, counted
from vitresnas.quickstart.recipes import retrain_recipe
from vitresnas.quickstart.result import RESULT, QuickstartResult
from vitresnas.quickstart.schedule import MOST_EPOCHS, USABLE
from vitresnas.search.constraint import Target
from vitresnas.search.folder import ARCHITECTURE, MODEL
from vitresnas.search.job import SearchRequest, create_job
from vitresnas.search.result import RESULT as FOUND
from vitresnas.search.result import SearchResult
from vitresnas.search.run import run as search
from vitresnas.train.recipe import Recipe
from vitresnas.train.result import RESULT as TRAINED
from vitresnas.train.result import TrainingResult
from vitresnas.train.run import look
from vitresnas.train.run import run as train
from vitresnas.verify.timing import aim_as, verify

TABLE, SUPERNET, SEARCH, FINAL = "latency_table.json", "supernet", "search", "final"
RETRAINING = "retraining.json"
# The search asks for so much more than the target, so that the verification agrees with its proof.
MARGIN = 0.02


def run(plan: Plan, out: Path) -> QuickstartResult:
    """Do what `plan` says into `out`, going on where an earlier attempt stopped.

    Raises UnreachableTarget before anything is trained, and what the stages raise.
    """
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        finished = QuickstartResult.load(out)
        if finished is not None:
            say(f"{out} already holds this quickstart, finished: nothing to do")
            return finished
        table = _table(plan, out)
        request = _search_request(plan, out)
        if not (out / SUPERNET / "training_run.json").exists():
            # An unreachable target is refused before the long training.
            create_job(replace(request, supernet=None))
        device = plan.request.device
        _stage(2, "super-network", plan.schedule.seconds["supernet"], out / SUPERNET / TRAINED)
        supernet = train(plan.recipe(out), out / SUPERNET, device=device)
        _stage(3, "search", plan.schedule.seconds["search"], out / SEARCH / FOUND)
        found = search(request)
        seconds = {
            "latency table": float(table.circumstances["seconds"]),
            "super-network": supernet.seconds,
            "search": float(found.seconds["total"]),
        }
        recipe, per_epoch = _retraining(plan, out, sum(seconds.values()))
        retraining = f"retraining, {counted(recipe.epochs, 'epoch')}"
        _stage(4, retraining, recipe.epochs * per_epoch, out / FINAL / TRAINED)
        trained = train(recipe, out / FINAL, device=device)
        seconds["retraining"] = trained.seconds
        _stage(5, "verification", plan.schedule.seconds["verify"], out / RESULT)
        return _finish(plan, out, found, trained, seconds)


def _stage(number: int, name: str, seconds: float, result: Path) -> None:
    """Say which stage begins, or that its result is there."""
    told = "done" if result.exists() else f"about {duration(seconds)}"
    say(f"{number} of 5: {name}, {told}")


def _table(plan: Plan, out: Path) -> LatencyTable:
    path = out / TABLE
    _stage(1, "latency table", plan.schedule.seconds["latency_table"], path)
    if path.exists():
        return load_tables(path)[0]
    request = TableRequest(
        device=plan.request.device,
        batch_size=plan.request.batch_size,
        dtype=plan.request.dtype,
        runtime=plan.request.runtime,
        seconds=plan.schedule.table_seconds,
    )
    return build_table(plan.space, request, path)


def _search_request(plan: Plan, out: Path) -> SearchRequest:
    return SearchRequest(
        target=Target.parse(plan.request.target),
        space=str(out / SPACE),
        data=plan.request.data,
        supernet=out / SUPERNET,
        latency_table=out / TABLE,
        device=plan.request.device,
        seed=plan.request.seed,
        out=out / SEARCH,
        proof_seconds=plan.schedule.proof_seconds,
        margin=MARGIN,
        unreadable_share=plan.request.unreadable_share,
    )


def _retraining(plan: Plan, out: Path, spent: float) -> tuple[Recipe, float]:
    """The recipe of the network that was found, and the seconds of an epoch. The epochs are decided
    once, from the time that is left and a few steps of this very network."""
    path = out / RETRAINING

    def recipe(epochs: int) -> Recipe:
        return retrain_recipe(
            plan.recipe(out),
            architecture=str(out / SEARCH / ARCHITECTURE),
            supernet=str(out / SUPERNET),
            epochs=epochs,
        )

    if not path.exists():
        say("timing the network that was found, to choose its epochs")
        found = look(recipe(plan.schedule.retrain_epochs), device=plan.request.device)
        epoch = found.seconds / plan.schedule.retrain_epochs
        left = USABLE * 3600 * plan.request.hours - spent - plan.schedule.seconds["verify"]
        epochs = max(1, min(int(left / epoch), MOST_EPOCHS["retrain"]))
        write_json(path, "quickstart_retraining", {"epochs": epochs, "seconds_per_epoch": epoch})
    fields = Fields(read_json(path, "quickstart_retraining"), str(path))
    return recipe(fields.integer("epochs")), fields.number("seconds_per_epoch", minimum=0)


def _finish(
    plan: Plan, out: Path, found: SearchResult, trained: TrainingResult, seconds: dict[str, float]
) -> QuickstartResult:
    """Time the network to use, and write down what came out, last of all files."""
    inherited = read_card(out / SEARCH / MODEL)
    best, classes = found.best.candidate, found.per_class
    scores = {
        "holdout": {
            **inherited["holdout"],
            "accuracy_by_class": classes["holdout_accuracy"][best.id],
        },
        "test": {**inherited["test"], "accuracy_by_class": classes["test_accuracy"]},
    }
    retrained = trained.holdout["network"]
    better = retrained["negative_log_likelihood"] < scores["holdout"]["negative_log_likelihood"]
    model = out / FINAL if better else out / SEARCH / MODEL
    if better:
        scores = {"holdout": retrained, "test": trained.test["network"]}
    aim_as(out / FINAL, out / SEARCH)  # then `vitresnas verify` needs no arguments
    began = time.monotonic()
    verification = verify(model, device=plan.request.device, seconds=plan.schedule.proof_seconds)
    seconds = {**seconds, "verification": time.monotonic() - began}
    speed = found.best.speed
    result = QuickstartResult(
        verdict=verification.verdict,
        target=verification.target,
        speed=verification.speed,
        proof={"verdict": found.verdict, "speed": asdict(speed)} if speed else {},
        model=str(model),
        network={"id": best.id, "macs": best.macs, "parameters": best.parameters},
        retrained=better,
        **scores,
        inherited_test_accuracy=inherited["test"]["accuracy"],
        classes={name: classes[name] for name in ("names", "holdout_images", "test_images")},
        seconds={name: round(value, 1) for name, value in seconds.items()},
        given_seconds=3600 * plan.request.hours,
        files={
            "model": str(model),
            **({} if better else {"retrained": str(out / FINAL)}),
            "search": str(out / SEARCH),
            "super-network": str(out / SUPERNET),
            "latency table": str(out / TABLE),
            "plan": str(out / PLAN),
            "result": str(out / RESULT),
        },
    )
    result.save(out)
    return result
