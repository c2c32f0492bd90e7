"""A training run to look at, finished or not: curves, scores, what it was, and where it ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitresnas.files import JsonObject, read_json, read_lines
from vitresnas.progress import duration
from vitresnas.report.chart import CATEGORIES, Chart, Point, Series
from vitresnas.report.page import Tile, charts, columns, facts, page, section, table, text, tiles
from vitresnas.report.scale import Axis, number

# The files of a run's folder; train/, which writes them, needs torch and this room does not.
RUN, RESULT = "training_run.json", "training_result.json"
METRICS, PROCESSES, ROLLBACKS = "metrics.jsonl", "processes.jsonl", "rollbacks.jsonl"
HOLDOUT, ACCURACY, LOSS = "holdout_", "_accuracy", "_nll"
DRAWN = ("loss", "learning_rate", "images_per_second")
NOT_DRAWN = ("epoch", "step", "seconds")


@dataclass(frozen=True)
class Run:
    """What lies in a run's folder; `result` is empty while it has not finished.

    metrics: one record per epoch. processes: one per start, of the process that led. rollbacks:
    the steps that were left out, and why.
    """

    name: str
    identity: JsonObject
    metrics: Sequence[JsonObject]
    processes: Sequence[JsonObject]
    rollbacks: Sequence[JsonObject]
    result: JsonObject

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Raises FileFormatError for damaged files. A run that goes on is not disturbed."""
        finished = (folder / RESULT).is_file()
        return cls(
            name=folder.resolve().name,
            identity=read_json(folder / RUN, "training_run"),
            metrics=read_lines(folder / METRICS),
            processes=read_lines(folder / PROCESSES),
            rollbacks=read_lines(folder / ROLLBACKS),
            # What version 2 added is not shown here.
            result=read_json(folder / RESULT, "training_result", 2, {1: dict}) if finished else {},
        )

    @property
    def epochs(self) -> int:
        """Done so far."""
        return int(self.metrics[-1]["epoch"]) if self.metrics else 0

    def names(self, ending: str) -> list[str]:
        """The networks with such a score on the hold-out: "largest", "smallest" ..."""
        found = {name: None for record in self.metrics for name in record}
        return [
            name.removeprefix(HOLDOUT).removesuffix(ending)
            for name in found
            if name.startswith(HOLDOUT) and name.endswith(ending)
        ]

    def curve(self, field: str) -> tuple[Point, ...]:
        """A field over the epochs that have it."""
        return tuple(
            Point(record["epoch"], value, f"epoch {record['epoch']}: {number(value)}")
            for record in self.metrics
            if isinstance(value := record.get(field), (int, float))
        )


def training_page(run: Run) -> str:
    """The page of a training run."""
    done = "finished" if run.result else "unfinished"
    parts = [tiles(*_tiles(run))]
    if run.metrics:
        parts.append(section("Epoch by epoch", charts(*_charts(run))))
    else:
        parts.append(section("Epoch by epoch", text("No epoch has been finished yet.")))
    if run.result:
        parts.append(section("Scores of the finished run", _scores(run.result)))
    if run.rollbacks:
        rows = [(r.get("first"), r.get("last"), r.get("reason")) for r in run.rollbacks]
        head = ("first step left out", "last", "because")
        parts.append(section("Setbacks", table(head, rows)))
    if run.processes:
        parts.append(section("Where it ran", _processes(run.processes)))
    how = section("What is trained, and how", facts(run.identity))
    last = run.processes[-1]["environment"] if run.processes else {}
    parts.append(columns(how, section("Environment of the last start", facts(last))))
    words = [run.name, str(run.identity.get("data", "")), f"{run.epochs} epochs so far"]
    return page(
        f"Training of {run.identity['name']}: {done}",
        " · ".join(word for word in words[: 2 if run.result else 3] if word),
        parts,
        badge=done,
    )


def _tiles(run: Run) -> Iterator[Tile]:
    yield Tile("epochs", f"{run.epochs} of {run.identity['epochs']}")
    if run.metrics:
        last = run.metrics[-1]
        yield Tile("training loss", f"{last['loss']:.4f}", "mean of the last epoch")
        yield Tile("speed", f"{last['images_per_second']:,.0f}", "images/s in the last epoch")
        spent = sum(record["seconds"] for record in run.metrics)
        yield Tile("trained for", duration(spent), "evaluation not counted")
    for name in run.names(ACCURACY)[:2]:
        scored = run.curve(f"{HOLDOUT}{name}{ACCURACY}")
        best = max(scored, key=lambda point: point.y)
        yield Tile(
            f"hold-out, {name}",
            f"{100 * scored[-1].y:.2f} %",
            f"best {100 * best.y:.2f} % in epoch {best.x:.0f}",
        )


def _charts(run: Run) -> Iterator[Chart]:
    epoch = Axis("epoch")
    losses = [Series("training", run.curve("loss"), "line", "quiet")]
    losses += [
        one
        for name in run.names(LOSS)
        for one in _line(f"hold-out, {name}", run.curve(f"{HOLDOUT}{name}{LOSS}"))
    ]
    yield Chart(
        "Loss",
        epoch,
        Axis("cross-entropy"),
        tuple(_coloured(losses)),
        "The training loss is of mixed and augmented images with soft labels, the hold-out's of "
        "plain ones: the two are not comparable.",
        verticals=tuple(_setbacks(run)),
    )
    accuracies = [
        one
        for name in run.names(ACCURACY)
        for one in _line(name, _percent(run.curve(f"{HOLDOUT}{name}{ACCURACY}")))
    ]
    yield Chart("Accuracy on the hold-out", epoch, Axis("percent"), tuple(_coloured(accuracies)))
    yield _single(run, "Learning rate", "learning_rate", "of the epoch's last step")
    yield _single(run, "Speed", "images_per_second", "images per second")
    for field in sorted({name for record in run.metrics for name in record}):
        known = field in (*DRAWN, *NOT_DRAWN) or field.startswith(HOLDOUT)
        if not known and len({point.y for point in run.curve(field)}) > 1:
            yield _single(run, field.replace("_", " ").capitalize(), field, "")


def _single(run: Run, title: str, field: str, unit: str) -> Chart:
    series = Series("", run.curve(field), "line", "strong")
    return Chart(title, Axis("epoch"), Axis(unit, zero=True), (series,))


def _line(name: str, points: tuple[Point, ...]) -> list[Series]:
    """The curve, and marks on it that tell their values."""
    return [Series(name, points, "line"), Series("", points, "dots")]


def _coloured(found: Sequence[Series]) -> Iterator[Series]:
    """A line and its marks share a colour."""
    colour = -1
    for series in found:
        if series.colour:
            yield series
            continue
        colour += bool(series.name)
        yield Series(series.name, series.points, series.style, f"c{colour % CATEGORIES}")


def _percent(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple(Point(p.x, 100 * p.y, f"epoch {p.x}: {100 * p.y:.2f} %") for p in points)


def _setbacks(run: Run) -> Iterator[tuple[float, str]]:
    """Where in the chart steps were left out."""
    if not run.metrics or not run.metrics[-1].get("step"):
        return
    steps_per_epoch = run.metrics[-1]["step"] / run.metrics[-1]["epoch"]
    for record in run.rollbacks:
        yield record["last"] / steps_per_epoch, "setback"


def _scores(result: Mapping[str, JsonObject]) -> str:
    def cells(score: Mapping[str, float]) -> tuple[str, str]:
        return f"{100 * score['accuracy']:.2f} %", f"{score['negative_log_likelihood']:.4f}"

    rows = [
        (name, *cells(score), *cells(result["test"][name]))
        for name, score in result["holdout"].items()
    ]
    notes = "".join(text(f"Note: {note}.") for note in result["data"].get("notes", ()))
    head = ("network", "hold-out", "NLL", "test", "NLL")
    return table(head, rows) + notes


def _processes(processes: Sequence[JsonObject]) -> str:
    """One row per start."""
    rows = []
    for record in processes:
        where = record["environment"]
        rows.append(
            (
                str(where.get("date", ""))[:19].replace("T", " "),
                where.get("device", ""),
                where.get("commit", "") or "no checkout",
                record.get("command", ""),
            )
        )
    head = ("began (UTC)", "device", "commit, + with changes", "command")
    return table(head, rows)
