"""A finished search to look at: the front, the history, what was measured, the winner."""

from __future__ import annotations

from collections.abc import Iterator

from vitresnas.progress import duration
from vitresnas.report.existing import compared_table
from vitresnas.report.networks import networks
from vitresnas.report.page import Tile, charts, columns, facts, page, section, table, text, tiles
from vitresnas.report.scale import number
from vitresnas.report.search_charts import SearchCharts, timed
from vitresnas.report.stages import draw_stages
from vitresnas.search.candidate import Candidate
from vitresnas.search.prove import counted
from vitresnas.search.result import SearchResult
from vitresnas.search.speed_axis import SpeedAxis
from vitresnas.space.operations import operations

COMPARE = '<div id="compare" aria-live="polite"></div>'
CLASSES_SHOWN = 20
SECONDS = {
    "data": "reading the data",
    "supernet": "training the super-network",
    "latency_table": "measuring the latency table",
    "search": "scoring candidates",
    "proof": "timing finalists",
    "fine_tuning": "fine-tuning finalists",
    "write": "writing the files",
}


def search_page(result: SearchResult, name: str) -> str:
    """The page of a search result. `name`: of its file or folder."""
    drawn = SearchCharts(result)
    return page(
        f"Search for {result.target.get('requested', 'the best score')}: {result.verdict}",
        _where(result, name),
        (
            tiles(*_tiles(result)),
            section("Every network that was scored", columns(drawn.front().svg(), COMPARE)),
            section("The winner, stage by stage", _winner(result)),
            section("Proof", _proof(drawn), _finalists(result), compared_table(result.compared)),
            _fine_tuned(result),
            section("Constraints", _constraints(result)),
            section("How it was found", columns(drawn.history().svg(), _seconds(result))),
            _classes(result),
            _difference(result),
            columns(
                section("Settings", facts(result.settings)),
                section("Environment", facts(result.environment)),
            ),
            networks(result),
        ),
        badge=result.verdict,
        script="networks.js",
    )


def _where(result: SearchResult, name: str) -> str:
    target, best = result.target, result.best.candidate
    condition = (target.get("dtype"), target.get("runtime"))
    words = [name, f"winner {best.id}", str(target.get("device", ""))]
    if "batch_size" in target:
        words.append(", ".join((f"batch {target['batch_size']}", *filter(None, condition))))
    words.append(str(result.environment.get("date", ""))[:10])
    return " · ".join(word for word in words if word)


def _tiles(result: SearchResult) -> Iterator[Tile]:
    best, speed = result.best.candidate, result.best.speed
    if speed:
        yield Tile("images/s measured", f"{speed.images_per_second:,.0f}",
                   "{:,.0f} to {:,.0f}".format(*speed.interval_95))  # fmt: skip
        yield Tile("over the largest", f"{speed.relative:.2f}x",
                   "{:.2f} to {:.2f} (95 %)".format(*speed.relative_interval_95))  # fmt: skip
    elif best.predicted_images_per_second:
        yield Tile("predicted images/s", f"{best.predicted_images_per_second:,.0f}", "not timed")
    score = best.score
    loss = f"{score.negative_log_likelihood:.4f}"
    inherited = ", inherited weights" if result.fine_tuned else ""
    if score.accuracy is not None:
        yield Tile("hold-out accuracy", _percent(score.accuracy), f"{loss} nats{inherited}")
    else:
        yield Tile("negative log-likelihood", loss, f"nats, {score.images} images{inherited}")
    if result.test_accuracy is not None:
        weights = "fine-tuned weights" if result.fine_tuned else "inherited weights"
        yield Tile("test accuracy", _percent(result.test_accuracy), weights)
    largest = result.largest.candidate
    for what, ours, theirs in (
        ("MACs", best.macs, largest.macs),
        ("parameters", best.parameters, largest.parameters),
    ):
        yield Tile(what, number(ours), f"{100 * ours / theirs:.0f} % of the largest")
    yield Tile("networks scored", f"{len(result.history):,}", f"{result.evaluated_images:,} images")


def _proof(drawn: SearchCharts) -> str:
    return charts(drawn.agreement(), drawn.speeds()) if timed(drawn.result) else ""


def _winner(result: SearchResult) -> str:
    best, largest = result.best.candidate.architecture, result.largest.candidate.architecture
    kinds: dict[str, int] = {}
    for operation in operations(best):
        kinds[operation.kind] = kinds.get(operation.kind, 0) + operation.macs
    total = sum(kinds.values())
    shares = ", ".join(f"{kind} {100 * cost / total:.0f} %" for kind, cost in kinds.items())
    return (
        draw_stages(best, largest)
        + '<div class="legend"><span><i class="c-c0"></i>attention channels (heads times their '
        'width)</span><span><i class="c-c1"></i>hidden channels of the MLP</span>'
        '<span><i class="outline"></i>the largest network</span></div>'
        + text(f"Of its MACs: {shares}.")
    )


def _finalists(result: SearchResult) -> str:
    head = ("network", "NLL", "hold-out", "predicted", "measured", "95 %",
            "x largest", "MACs", "parameters")  # fmt: skip
    rows, keys = [], []
    for finalist in timed(result):
        candidate, speed = finalist.candidate, finalist.speed
        assert speed is not None
        keys.append(candidate.id)
        rows.append(
            (
                candidate.id + _role(result, candidate),
                f"{candidate.score.negative_log_likelihood:.4f}",
                _percent(candidate.score.accuracy),
                f"{candidate.predicted_images_per_second or 0:,.0f}",
                f"{speed.images_per_second:,.0f}",
                "{:,.0f} to {:,.0f}".format(*speed.interval_95),
                f"{speed.relative:.2f}",
                number(candidate.macs),
                number(candidate.parameters),
            )
        )
    if not rows:
        return text("Nothing was timed: the latency table is of another machine.")
    return "<h3>Finalists</h3>" + table(head, rows, keys)


def _fine_tuned(result: SearchResult) -> str:
    """Finalists that were trained further; the best of them is the winner."""
    rows = [
        (
            one.id + (" (winner)" if one.id == result.best.candidate.id else ""),
            f"{one.score.negative_log_likelihood:.4f}",
            _percent(one.score.accuracy),
        )
        for one in result.fine_tuned
    ]
    head = ("network", "NLL", "hold-out")
    keys = [one.id for one in result.fine_tuned]
    return section("Fine-tuned, with their own weights", table(head, rows, keys)) if rows else ""


def _role(result: SearchResult, candidate: Candidate) -> str:
    if candidate.id == result.best.candidate.id:
        return " (winner)"
    return " (largest)" if candidate.id == result.largest.candidate.id else ""


def _constraints(result: SearchResult) -> str:
    """One verdict per bound: the target's by the proof, what is counted by counting."""
    head = ("constraint", "predicted", "found", "95 %", "verdict", "how")
    rows, best, speed = [], result.best, SpeedAxis.of(result)
    for check in best.checks:
        ends = check.interval_95 or ()
        rows.append((
            check.wanted, _number(check.predicted), _number(check.measured),
            " to ".join(map(_number, ends)), check.verdict, check.how,
        ))  # fmt: skip
    if rows:
        return table(head, rows)
    if result.target:  # a result of an earlier version
        value, interval = "", ""
        if best.speed:
            found, ends = speed.measured(best.speed)
            value, interval = speed.text(found), " to ".join(map(speed.text, ends))
        predicted = speed.text(speed.predicted(best.candidate))
        wanted = f"throughput >= {result.target['requested']}"
        rows.append((wanted, predicted, value, interval, result.verdict, "timed" if value else ""))
    for constraint in result.settings.get("constraints", ()):
        name = str(constraint).split()[0]
        known = counted(best.candidate).get(name)
        rows.append((constraint, "", f"{known.value:,.0f}" if known else "", "",
                     "met" if known else "unproven", known.how if known else ""))  # fmt: skip
    return table(head, rows) if rows else text("none")


def _classes(result: SearchResult) -> str:
    """The winner's accuracies class by class, the worst first."""
    found, best = result.per_class, result.best.candidate.id
    if not found:
        return ""
    rows = sorted(
        zip(
            found["names"],
            found["holdout_images"],
            found["holdout_accuracy"][best],
            found["test_images"],
            found["test_accuracy"],
            strict=True,
        ),
        key=lambda row: 2.0 if row[4] is None else row[4],
    )
    shown = [
        (name, held, _percent(on_holdout), tested, _percent(on_test))
        for name, held, on_holdout, tested, on_test in rows[:CLASSES_SHOWN]
    ]
    held_out = "accuracy, inherited" if result.fine_tuned else "accuracy"
    head = ("class", "hold-out images", held_out, "test images", "accuracy")
    rest = len(rows) - len(shown)
    more = text(f"{rest} more classes, all of them better.") if rest else ""
    return section("The winner, class by class", table(head, shown), more)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.5g}" if value < 1e4 else f"{value:,.0f}"


def _difference(result: SearchResult) -> str:
    """Where the table's machine is not the one that searched."""
    rows = [(found.field, found.table or "", found.here or "") for found in result.table_difference]
    title = "The latency table is of another machine, or of this one in another state"
    return section(title, table(("field", "table", "search"), rows)) if rows else ""


def _seconds(result: SearchResult) -> str:
    total = result.seconds.get("total") or sum(result.seconds.values()) or 1.0
    rows = [
        (words, duration(result.seconds[name]), f"{100 * result.seconds[name] / total:.0f} %")
        for name, words in SECONDS.items()
        if name in result.seconds
    ]
    return "<h3>Where the time went</h3>" + table(
        ("", "took", "share"), [*rows, ("in all", duration(total), "")]
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
