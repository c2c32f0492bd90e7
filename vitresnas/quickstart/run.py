"""The stages, each an existing command's function into a folder of its own, all resumable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from vitresnas.cache import locked
from vitresnas.doors import say
from vitresnas.files import Fields, JsonObject, read_json, storage_errors, write_json
from vitresnas.latency import LatencyTable, load_tables
from vitresnas.latency.build import build_table
from vitresnas.latency.request import Request as TableRequest
from vitresnas.models.model_directory import read_card, update_card
from vitresnas.quickstart.plan import SPACE, Plan
from vitresnas.quickstart.recipes import retrain_recipe
from vitresnas.quickstart.schedule import MOST_EPOCHS, USABLE
from vitresnas.search.constraint import Target
from vitresnas.search.job import SearchRequest, create_job
from vitresnas.search.result import SearchResult
from vitresnas.search.run import ARCHITECTURE, MODEL
from vitresnas.search.run import run as search
from vitresnas.train.progress import clock
from vitresnas.train.recipe import Recipe
from vitresnas.train.result import TrainingResult
from vitresnas.train.run import look
from vitresnas.train.run import run as train
from vitresnas.verify import verify

TABLE, SUPERNET, SEARCH, FINAL = "latency_table.json", "supernet", "search", "final"
RETRAINING, RESULT = "retraining.json", "quickstart_result.json"
KIND = "quickstart_result"


@dataclass(frozen=True)
class QuickstartResult:
    """What came out. model: the folder of the network to use: the retrained one, or the one with
    inherited weights where retraining made the hold-out's likelihood worse. test, holdout:
    {"accuracy", "negative_log_likelihood"} of it. seconds: by stage."""

    verdict: str
    target: JsonObject
    speed: JsonObject
    model: str
    network: JsonObject
    retrained: bool
    holdout: JsonObject
    test: JsonObject
    inherited_test_accuracy: float
    seconds: dict[str, float]
    files: dict[str, str]

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def load(cls, out: Path) -> QuickstartResult | None:
        if not (out / RESULT).exists():
            return None
        fields = Fields(read_json(out / RESULT, KIND), str(out / RESULT))
        found = cls(**{name: fields.take(name) for name in cls.__dataclass_fields__})
        fields.done()
        return found

    def lines(self) -> list[str]:
        """For people."""
        speed, test = self.speed, self.test
        low, high = speed["interval_95"]
        relative = f", {speed['relative']:.2f}x the largest" if "relative" in speed else ""
        weights = "retrained" if self.retrained else "inherited: retraining did not help"
        width = max(map(len, self.files))
        return [
            f"{self.verdict}: {self.target['requested']} at batch {self.target['batch_size']}, "
            f"{self.target['dtype']}, {self.target['runtime']}, on {self.target['device']}",
            f"  measured  {speed['images_per_second']:,.0f} images/s ({low:,.0f} to {high:,.0f})"
            + relative,
            f"  network   {self.network['id']}: {self.network['macs'] / 1e6:,.1f} M MACs, "
            f"{self.network['parameters'] / 1e6:,.2f} M parameters, weights {weights}",
            f"  test      accuracy {test['accuracy']:.4f} "
            f"({self.inherited_test_accuracy:.4f} before retraining)",
            f"  time      {clock(sum(self.seconds.values()))}: "
            + ", ".join(f"{name} {clock(value)}" for name, value in self.seconds.items()),
            *(f"  {name:{width}}  {path}" for name, path in self.files.items()),
        ]


def run(plan: Plan, out: Path) -> QuickstartResult:
    """Do what `plan` says into `out`, going on where an earlier attempt stopped.

    Raises UnreachableTarget before anything is trained, and what the stages raise.
    """
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        finished = QuickstartResult.load(out)
        if finished is not None:
            say(f"{out} holds this quickstart, finished: nothing was done again")
            return finished
        table = _table(plan, out)
        request = _search_request(plan, out)
        if not (out / SUPERNET / "training_run.json").exists():
            create_job(request)  # an unreachable target is refused before the long training
        device = plan.request.device
        _stage(2, "super-network", plan.schedule.seconds["supernet"])
        supernet = train(plan.recipe(out), out / SUPERNET, device=device)
        _stage(3, "search", plan.schedule.seconds["search"])
        found = search(request, _none_to_train)
        seconds = {
            "latency table": float(table.circumstances["seconds"]),
            "super-network": supernet.seconds,
            "search": float(found.seconds["total"]),
        }
        recipe = _retraining(plan, out, sum(seconds.values()))
        _stage(4, f"retraining, {recipe.epochs} epochs", plan.schedule.seconds["retrain"])
        trained = train(recipe, out / FINAL, device=device)
        seconds["retraining"] = trained.seconds
        _stage(5, "verification", plan.schedule.seconds["verify"])
        return _finish(plan, out, found, trained, seconds)


def _stage(number: int, name: str, seconds: float) -> None:
    say(f"{number} of 5: {name}, about {clock(seconds)}")


def _table(plan: Plan, out: Path) -> LatencyTable:
    path = out / TABLE
    if path.exists():
        return load_tables(path)[0]
    _stage(1, "latency table", plan.schedule.seconds["latency_table"])
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
    )


def _none_to_train(space: str, data: str | None) -> NoReturn:
    raise AssertionError("the super-network is given")


def _retraining(plan: Plan, out: Path, spent: float) -> Recipe:
    """The recipe of the network that was found; its epochs are decided once, from the time that is
    left and a few steps of this very network."""
    path = out / RETRAINING

    def recipe(epochs: int) -> Recipe:
        return retrain_recipe(
            plan.recipe(out),
            architecture=str(out / SEARCH / ARCHITECTURE),
            supernet=str(out / SUPERNET),
            epochs=epochs,
        )

    if not path.exists():
        found = look(recipe(plan.schedule.retrain_epochs), device=plan.request.device)
        epoch = found.seconds / plan.schedule.retrain_epochs
        left = USABLE * 3600 * plan.request.hours - spent - plan.schedule.seconds["verify"]
        epochs = max(1, min(int(left / epoch), MOST_EPOCHS["retrain"]))
        write_json(path, "quickstart_retraining", {"epochs": epochs, "seconds_per_epoch": epoch})
    epochs = Fields(read_json(path, "quickstart_retraining"), str(path)).integer("epochs")
    return recipe(epochs)


def _finish(
    plan: Plan, out: Path, found: SearchResult, trained: TrainingResult, seconds: dict[str, float]
) -> QuickstartResult:
    """Time the network to use, and write down what came out, last of all files."""
    inherited = read_card(out / SEARCH / MODEL)
    holdout, test = trained.holdout["network"], trained.test["network"]
    better = holdout["negative_log_likelihood"] < inherited["holdout"]["negative_log_likelihood"]
    model = out / FINAL if better else out / SEARCH / MODEL
    if not better:
        holdout, test = inherited["holdout"], inherited["test"]
    # What a search's card says of the target, so that `vitresnas verify` needs no arguments.
    update_card(out / FINAL, {name: inherited[name] for name in ("target", "largest")})
    verification = verify(model, device=plan.request.device, seconds=plan.schedule.proof_seconds)
    best = found.best.candidate
    result = QuickstartResult(
        verdict=verification.verdict,
        target=verification.target,
        speed=verification.speed,
        model=str(model),
        network={"id": best.id, "macs": best.macs, "parameters": best.parameters},
        retrained=better,
        holdout=holdout,
        test=test,
        inherited_test_accuracy=inherited["test"]["accuracy"],
        seconds={name: round(value, 1) for name, value in seconds.items()},
        files={
            "model": str(model),
            "retrained": str(out / FINAL),
            "search": str(out / SEARCH),
            "super-network": str(out / SUPERNET),
            "latency table": str(out / TABLE),
            "plan": str(out / "quickstart_plan.json"),
        },
    )
    write_json(out / RESULT, KIND, result.to_json())
    return result
