"""Super-networks trained by each sampler for an equal time, compared on the same networks.

    python bench/samplers.py --recipe cifar-nano-supernet --data DIR --hours 1 --out DIR

1. Each sampler's steps are timed in turns, and every one gets as many whole epochs as fit into the
   same time (OUT/plan.json; the measured training time stands beside each result).
2. Each trains a super-network by the recipe, its schedule stretched to these epochs (OUT/NAME).
3. A hundred networks, drawn once from the space, are scored with each one's weights on the
   hold-out: mean likelihood, and differences to the first sampler network by network.
4. A search under a bound on MACs finds each one's best network; the test split only reports it.

Interrupted anywhere, the same command goes on. OUT/samplers.json holds the result. The sandwich
runs all networks of a step on the same images, so it takes batches of B / groups images where the
others take B: every sampler's step computes as many passes.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from plans import decided, equal_epochs, seconds_per_epoch
from vitresnas.data import Data, ImageSet, load_data
from vitresnas.doors import Parser, door, print_json, say
from vitresnas.errors import InputError
from vitresnas.files import JsonObject, read_json, write_json
from vitresnas.latency.environment import describe_environment
from vitresnas.search import EvaluationLog, Evolution, Score, search
from vitresnas.search.evaluate import Evaluator
from vitresnas.search.score import SupernetScorer
from vitresnas.search.strategies import create_strategy
from vitresnas.search.strategy import Proposal
from vitresnas.space import Architecture, SearchSpace, macs
from vitresnas.supernet import load_supernet
from vitresnas.supernet.samplers import SAMPLERS, load_sampler
from vitresnas.supernet.supernet import PATHS
from vitresnas.train.place import choose_place
from vitresnas.train.precision import settled
from vitresnas.train.recipe import AUTO, SUPERNET, Recipe
from vitresnas.train.recipes import load_recipe
from vitresnas.train.run import run
from vitresnas.train.tasks import image_size, supernet_space

KIND, PLAN_KIND = "samplers", "samplers_plan"
PLAN = "plan.json"
REPORTED = ("largest", "median", "smallest", "best")


@door
def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    base = _base_recipe(options)
    names = options.samplers.split(",")
    data = load_data(base.data, image_size=image_size(base))
    space = supernet_space(base, data)
    plan = _plan(options, base, names, data)
    holdout = some_images(data.holdout, options.images, options.seed)
    networks = draw_networks(space, options.networks, options.seed)
    rows = []
    for name in names:
        recipe = _recipe(base, name, plan["epochs"][name])
        out = options.out / name
        say(f"{name}: {recipe.epochs} epochs")
        result = run(recipe, out, device=options.device, workers=options.workers)
        row = _score(recipe, out, data, holdout, networks, options)
        rows.append({**row, "training_seconds": result.seconds})
    for row in rows:
        row["difference"] = _difference(row["networks"], rows[0]["networks"])
    document = {
        "space": space.name,
        "space_id": space.id,
        "data": {"name": data.name, "id": data.id},
        "holdout_images": len(holdout),
        "seed": options.seed,
        "equal_seconds": plan["equal_seconds"],
        "rows": rows,
        "environment": describe_environment(),
    }
    write_json(options.out / "samplers.json", KIND, document)
    if options.json:
        print_json(document)
    else:
        print("\n".join(table(document)))
    say(f"wrote {options.out / 'samplers.json'}")
    return 0


def draw_networks(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Different uniform draws, the same for every sampler. Raises InputError for too many."""
    rng = Random(f"{seed}/samplers")
    if count > space.size // 2:
        raise InputError(f"--networks is {count}: {space.name} holds {space.size}, ask for fewer")
    drawn: dict[str, Architecture] = {}
    while len(drawn) < count:
        architecture = space.sample(rng)
        drawn[architecture.id] = architecture
    return list(drawn.values())


def some_images(images: ImageSet, count: int | None, seed: int) -> ImageSet:
    """So many of them, drawn without regard to their classes, or all."""
    if count is None or count >= len(images):
        return images
    kept = sorted(Random(f"{seed}/images").sample(range(len(images)), count))
    return ImageSet(images.images[kept], images.labels[kept])


def table(document: JsonObject) -> list[str]:
    """For people, a sampler a line."""
    lines = [
        f"{'sampler':20} {'epochs':>6} {'trained':>9} {'nll of the draws':>17} "
        f"{'difference [95 %]':>24} {'best: nll':>10}   "
        "test accuracy: largest, median, smallest, best"
    ]
    for row in document["rows"]:
        difference, best = row["difference"], row["best"]
        accuracies = (row[which]["test_accuracy"] for which in REPORTED)
        low, high = difference["interval_95"]
        lines.append(
            f"{row['sampler']:20} {row['epochs']:>6} {row['training_seconds']:>7.0f} s "
            f"{row['mean_negative_log_likelihood']:>17.4f} "
            f"{difference['mean']:>+8.4f} [{low:+.4f}, {high:+.4f}] "
            f"{best['negative_log_likelihood']:>9.4f}   "
            + ", ".join(f"{100 * accuracy:.2f} %" for accuracy in accuracies)
        )
    return lines


def _parse(argv: Sequence[str] | None) -> Any:
    parser = Parser(
        prog="samplers.py",
        description="Compare the samplers of super-networks under equal time.",
        example="python bench/samplers.py --recipe cifar-nano-supernet --data cifar10 --hours 1 "
        "--out samplers",
    )
    add = parser.add_argument
    add("--recipe", default="cifar-nano-supernet", help="of the super-networks")
    add("--space", help="a space by name or file (the recipe's)")
    add("--data", help="images, as for training (the recipe's)")
    add("--hours", type=float, required=True, help="of training for each sampler")
    add(
        "--samplers",
        default=",".join(SAMPLERS),
        help="by name, with commas; the first is compared to",
    )
    add("--networks", type=int, default=100, help="fixed networks that are scored (100)")
    add("--macs-share", type=float, default=0.5, help="bound of the search, of the largest's (0.5)")
    add("--candidates", type=int, help="networks that the search scores (as the space needs)")
    add("--seed", type=int, default=0, help="seed of everything (0)")
    add("--batch-size", type=int, help="images of a step (the recipe's)")
    add("--dtype", choices=("fp32", "bf16"), help="of the training (the recipe's)")
    add("--path", choices=(AUTO, *PATHS), help="how a step is computed (the recipe's)")
    add("--images", type=int, help="of the hold-out, drawn once, that networks are scored on (all)")
    add("--device", default="auto", help="auto, cpu, cuda ...")
    add("--workers", type=int, help="processes that decode and augment images")
    add("--out", type=Path, required=True, help="the folder to write")
    add("--json", action="store_true", help="the result as JSON on stdout")
    options = parser.parse_args(argv)
    if not options.hours > 0:
        raise InputError(f"--hours is {options.hours}: use a number above 0")
    if options.networks < 2:
        raise InputError(f"--networks is {options.networks}: give at least 2 to compare")
    for name in options.samplers.split(","):
        load_sampler(name)
    return options


def _base_recipe(options: Any) -> Recipe:
    recipe = load_recipe(options.recipe)
    if recipe.task != SUPERNET:
        raise InputError(f"{recipe.name} trains one network: give the recipe of a super-network")
    names = ("space", "data", "batch_size", "dtype", "path")
    given = {name: getattr(options, name) for name in names}
    recipe = replace(recipe, seed=options.seed, **{k: v for k, v in given.items() if v})
    if not recipe.data:
        raise InputError(f"{recipe.name} has no images of its own: give --data")
    plan = options.out / PLAN
    begun = read_json(plan, PLAN_KIND)["asked"]["recipe"] if plan.exists() else None
    return settled(recipe, choose_place(recipe, options.device).device, begun)


def _recipe(base: Recipe, name: str, epochs: int) -> Recipe:
    """The base recipe with this sampler, stretched to so many epochs."""
    shared = load_sampler(name).shares_images
    return replace(
        base.stretched(epochs),
        sampler=name,
        batch_size=base.batch_size // base.groups if shared else base.batch_size,
        evaluate_every=epochs,  # looks at the hold-out are no training
    )


def _plan(options: Any, base: Recipe, names: Sequence[str], data: Data) -> JsonObject:
    """How many epochs each sampler gets, decided once: {"epochs", "equal_seconds", ...}."""

    def decide() -> JsonObject:
        recipes = {name: _recipe(base, name, base.epochs) for name in names}
        seconds = seconds_per_epoch(recipes, data, options.device, options.workers)
        equal, epochs = equal_epochs(seconds, options.hours)
        return {"seconds_per_epoch": seconds, "equal_seconds": equal, "epochs": epochs}

    asked = {
        "recipe": base.to_json(),
        "samplers": list(names),
        "hours": options.hours,
        "data": data.id,
    }
    return decided(options.out / PLAN, PLAN_KIND, asked, decide)


def _score(
    recipe: Recipe,
    out: Path,
    data: Data,
    holdout: ImageSet,
    networks: Sequence[Architecture],
    options: Any,
) -> JsonObject:
    """What a super-network says about the fixed networks, and the best that a search finds."""
    device = choose_place(recipe, options.device).device
    supernet = load_supernet(out, device=device)
    judged = {"data": data.id, "images": len(holdout), "recipe": recipe.to_json()}
    log = EvaluationLog(out / "evaluations.jsonl", judged)
    scorer = SupernetScorer(supernet, holdout)
    found = Evaluator(scorer, None, log)([Proposal(network) for network in networks])
    bound = int(options.macs_share * macs(supernet.space.largest))
    strategy = create_strategy(Evolution.name, supernet.space, candidates=options.candidates)
    best = search(supernet.space, scorer, [f"macs={bound}"], strategy, options.seed, log=log).best
    test = SupernetScorer(supernet, data.test)
    by_macs = sorted(networks, key=macs)
    reported = (
        supernet.space.largest,
        by_macs[len(by_macs) // 2],
        supernet.space.smallest,
        best.candidate.architecture,
    )
    sampler = load_sampler(recipe.sampler)
    losses = [one.score.negative_log_likelihood for one in found]
    return {
        "sampler": sampler.name,
        "source": sampler.source,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "groups": recipe.groups,
        "mean_negative_log_likelihood": statistics.fmean(losses),
        "median_negative_log_likelihood": statistics.median(losses),
        "mean_accuracy": statistics.fmean(one.score.accuracy or 0.0 for one in found),
        "networks": [
            {
                "id": one.id,
                "macs": one.macs,
                "negative_log_likelihood": one.score.negative_log_likelihood,
                "accuracy": one.score.accuracy,
            }
            for one in found
        ],
        "best_macs_bound": bound,
        "best_architecture": best.candidate.architecture.to_json(),
        **{
            which: report_of(network, scorer(network), test(network))
            for which, network in zip(REPORTED, reported, strict=True)
        },
    }


def report_of(network: Architecture, holdout: Score, test: Score) -> JsonObject:
    return {
        "id": network.id,
        "macs": macs(network),
        "negative_log_likelihood": holdout.negative_log_likelihood,
        "accuracy": holdout.accuracy,
        "test_negative_log_likelihood": test.negative_log_likelihood,
        "test_accuracy": test.accuracy,
    }


def _difference(ours: Sequence[JsonObject], first: Sequence[JsonObject]) -> JsonObject:
    """Of the likelihoods, network by network; the interval is of their mean, over networks."""
    key = "negative_log_likelihood"
    differences = [a[key] - b[key] for a, b in zip(ours, first, strict=True)]
    mean = statistics.fmean(differences)
    half = 1.96 * statistics.stdev(differences) / len(differences) ** 0.5
    return {"mean": mean, "interval_95": [mean - half, mean + half]}


if __name__ == "__main__":
    sys.exit(main())
