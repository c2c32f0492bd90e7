"""What a quickstart came to, on one page: verdict, classes, the plan against the clock, and where
everything lies. Its stages have pages of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vitresnas.files import JsonObject, read_json
from vitresnas.progress import duration
from vitresnas.report.page import Tile, columns, facts, page, section, table, text, tiles
from vitresnas.report.scale import number

# The files of a quickstart; quickstart/, which writes them, needs torch and this room does not.
RESULT, PLAN = "quickstart_result.json", "quickstart_plan.json"
# In the plan and, as people read them, in the result; both sort their fields.
STAGES = {
    "latency_table": "latency table",
    "supernet": "super-network",
    "search": "search",
    "retrain": "retraining",
    "verify": "verification",
}
REPORTS = ("search", "super-network", "latency table")


def quickstart_page(path: Path) -> str:
    """The page of the result at `path`, with the plan beside it. Raises FileFormatError."""
    # What version 2 added is not there in a result of version 1.
    result = read_json(path, "quickstart_result", 2, {1: dict})
    plan_file = path.with_name(PLAN)
    plan = read_json(plan_file, "quickstart_plan") if plan_file.is_file() else {}
    target, files = result["target"], result["files"]
    parts = [files[name] for name in REPORTS if name in files]
    parts.append(files.get("retrained", result["model"]))
    pages = ", ".join(f"vitresnas report {part}" for part in parts)
    return page(
        f"Quickstart for {target['requested']}: {result['verdict']}",
        f"{target['device']} · batch {target['batch_size']}, {target['dtype']}, "
        f"{target['runtime']} · the model to use is {result['model']}",
        (
            tiles(*_tiles(result)),
            _classes(result),
            section("Time", _time(result, plan)),
            section("Where it is", facts(files), text(f"More on each part: {pages}.")),
            columns(
                section("The images", facts(plan.get("images", {}))),
                section("The request", facts(plan.get("request", {}))),
            ),
        ),
        badge=result["verdict"],
    )


def _tiles(result: JsonObject) -> Iterator[Tile]:
    speed, test = result["speed"], result["test"]
    ends = "{:,.0f} to {:,.0f} (95 %)".format(*speed["interval_95"])
    yield Tile("images/s measured", f"{speed['images_per_second']:,.0f}", ends)
    if "relative" in speed:
        ends = "{:.3f} to {:.3f} (95 %)".format(*speed["relative_interval_95"])
        yield Tile("over the largest", f"{speed['relative']:.3f}x", ends)
    if result.get("proof"):
        told = "{:.3f}x".format(result["proof"]["speed"]["relative"])
        yield Tile("the search's proof", result["proof"]["verdict"], f"{told} the largest")
    weights = "retrained" if result["retrained"] else "inherited: retraining did not help"
    yield Tile("test accuracy", f"{100 * test['accuracy']:.2f} %", f"weights {weights}")
    before = f"{100 * result['inherited_test_accuracy']:.2f} %"
    yield Tile("before retraining", before, "test accuracy with inherited weights")
    yield Tile("MACs", number(result["network"]["macs"]), f"network {result['network']['id']}")
    yield Tile("parameters", number(result["network"]["parameters"]))


def _classes(result: JsonObject) -> str:
    """Accuracies class by class, the worst first."""
    classes = result.get("classes")
    if not classes:
        return ""
    rows = zip(
        classes["names"],
        classes["test_images"],
        result["test"]["accuracy_by_class"],
        classes["holdout_images"],
        result["holdout"]["accuracy_by_class"],
        strict=True,
    )
    shown = [
        (name, tested, _percent(on_test), held, _percent(on_holdout))
        for name, tested, on_test, held, on_holdout in sorted(
            rows, key=lambda row: 2.0 if row[2] is None else row[2]
        )
    ]
    head = ("class", "test images", "accuracy", "hold-out images", "accuracy")
    return section("Class by class, the worst first", table(head, shown))


def _time(result: JsonObject, plan: JsonObject) -> str:
    planned, taken = plan.get("schedule", {}).get("seconds", {}), result["seconds"]
    rows = [
        (
            words,
            duration(planned[name]) if name in planned else "",
            duration(taken[words]) if words in taken else "",
        )
        for name, words in STAGES.items()
    ]
    rows.append(("all stages", duration(sum(planned.values())), duration(sum(taken.values()))))
    given = result.get("given_seconds")
    return table(("stage", "planned", "took"), rows) + (
        text(f"Given: {duration(given)}.") if given else ""
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
