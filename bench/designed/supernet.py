"""The first stage: a super-network in the time given, and what networks of three sizes inherit."""

from __future__ import annotations

from designed.request import Request, curve, looked_at
from plans import decided, equal_epochs, seconds_per_epoch
from samplers import draw_networks, report_of
from vitresnas.data import Data
from vitresnas.files import JsonObject, read_json, write_json
from vitresnas.search.score import SupernetScorer
from vitresnas.space import SearchSpace, macs
from vitresnas.supernet import load_supernet
from vitresnas.train.place import choose_place
from vitresnas.train.run import run

KIND, PLAN_KIND = "against_designed_supernet", "against_designed_supernet_plan"
DRAWS = 100  # whose median by MACs is reported


def train_supernet(request: Request, data: Data, space: SearchSpace) -> JsonObject:
    """Train it, or go on, and score its largest, its median and its smallest network."""
    path = request.out / "supernet.json"
    plan = _plan(request, data)
    if path.exists():
        return read_json(path, KIND)
    recipe = looked_at(request.supernet_recipe().stretched(plan["epochs"]))
    result = run(recipe, request.supernet, device=request.device, workers=request.workers)
    supernet = load_supernet(
        request.supernet, space=space, device=choose_place(recipe, request.device).device
    )
    holdout, test = SupernetScorer(supernet, data.holdout), SupernetScorer(supernet, data.test)
    drawn = sorted(
        draw_networks(space, min(DRAWS, space.size // 2), request.seed), key=lambda one: macs(one)
    )
    networks = {
        "largest": space.largest,
        "median": drawn[len(drawn) // 2],
        "smallest": space.smallest,
    }
    document = {
        "recipe": recipe.to_json(),
        "space": {"name": space.name, "id": space.id},
        "data": {"name": data.name, "id": data.id, "test_images": len(data.test)},
        "epochs": plan["epochs"],
        "planned_seconds": plan["planned_seconds"],
        "used_seconds": result.seconds,
        "networks": [
            {"size": size, **report_of(network, holdout(network), test(network))}
            for size, network in networks.items()
        ],
        "curves": {name: curve(request.supernet, name) for name in ("largest", "smallest")},
    }
    write_json(path, KIND, document)
    return document


def _plan(request: Request, data: Data) -> JsonObject:
    """How many epochs, decided once."""
    recipe = request.supernet_recipe()

    def decide() -> JsonObject:
        seconds = seconds_per_epoch({recipe.name: recipe}, data, request.device, request.workers)
        epochs = recipe.epochs
        if request.hours is not None:
            _, by_name = equal_epochs(seconds, request.hours)
            epochs = by_name[recipe.name]
        return {"epochs": epochs, "planned_seconds": epochs * seconds[recipe.name]}

    asked = {"recipe": recipe.to_json(), "hours": request.hours, "data": data.id}
    return decided(request.out / "supernet_plan.json", PLAN_KIND, asked, decide)
