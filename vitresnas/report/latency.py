"""A latency table to look at: how well it predicts, whether the machine drifted, what costs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from vitresnas.latency.statistics import kendall_tau
from vitresnas.latency.table import LatencyTable
from vitresnas.latency.validation import Pair, Validation
from vitresnas.report.chart import Chart, Point, Series
from vitresnas.report.drift import anchor_chart
from vitresnas.report.existing import timed_section, timed_series
from vitresnas.report.page import charts, facts, page, section, table, text
from vitresnas.report.pairs import Place, marks, predicted_and_measured
from vitresnas.report.scale import Axis, number
from vitresnas.report.words import describe
from vitresnas.space.operations import Operation

WIDTHS = (
    "width",
    "width_in",
    "classes",
)  # the field an operation's cost is drawn over, first found

NOTHING: Mapping[tuple[str | int, ...], str] = {}


def latency_page(
    tables: Sequence[LatencyTable],
    name: str,
    beside: Mapping[tuple[str | int, ...], str] = NOTHING,
) -> str:
    """The page of a latency-table file.

    `name`: the file's. `beside`: by condition, a section that holds it against another file.
    """
    sections = [
        part for found in tables for part in _condition(found, beside.get(found.condition.key, ""))
    ]
    many = f"{len(tables)} conditions" if len(tables) > 1 else "one condition"
    summary = f"{name}: {many}. Times are milliseconds per batch; hover for the architecture."
    return page(f"Latency table of {tables[0].condition.device}", summary, sections)


def _condition(found: LatencyTable, beside: str) -> list[str]:
    condition, check = found.condition, found.validation
    pairs = check.pairs + found.validation_uniform.pairs
    by_macs = kendall_tau([_macs(pair) for pair in pairs], [pair.measured for pair in pairs])
    by_table = kendall_tau([pair.predicted for pair in pairs], [pair.measured for pair in pairs])
    anchor = (anchor_chart(found.drift),) if found.drift else ()
    origin = (text(str(found.transfer)),) if found.transfer else ()
    parts = [
        section(
            str(condition),
            *origin,
            text(
                f"On {len(check.pairs)} held-out networks the table is off by "
                f"{check.mean_absolute_percentage_error:.1f} % on average and "
                f"{check.worst_percent:.1f} % at worst (Kendall tau {check.kendall_tau:.2f})."
            ),
            charts(
                _agreement(check, found.validation_uniform),
                _macs_chart(pairs, timed_series(found.compared), by_macs, by_table),
            ),
            charts(_residuals(check, found.validation_uniform), _drift(pairs), *anchor),
            text(str(found.drift) if found.drift else "drift: not recorded in this table"),
            charts(*_costs(found)),
        ),
        timed_section(found.compared),
        beside,
        section(
            "The correction on top of the sum of pieces",
            table(
                ("model", "leave-one-out error, %"),
                [
                    (
                        name + (" (chosen)" if name == found.calibration.model else ""),
                        f"{error:.2f}",
                    )
                    for name, error in sorted(
                        found.calibration.comparison, key=lambda item: item[1]
                    )
                ],
            ),
        ),
        section(
            "Where and how it was measured", facts({**found.circumstances, **found.environment})
        ),
    ]
    return parts


def _macs(pair: Pair) -> float:
    return float(pair.to_json()["macs"])


def _agreement(spaced: Validation, uniform: Validation) -> Chart:
    return Chart(
        "Predicted against measured",
        Axis("predicted by the table, ms", log=True),
        Axis("measured, ms", log=True),
        _both(spaced, uniform, predicted_and_measured),
        "Whole networks that the calibration never saw; on the dashed line the table is right.",
        diagonal=True,
    )


def _residuals(spaced: Validation, uniform: Validation) -> Chart:
    def error(pair: Pair) -> tuple[float, float]:
        return pair.measured, 100 * (pair.predicted / pair.measured - 1)

    return Chart(
        "Error of the prediction",
        Axis("measured, ms", log=True),
        Axis("predicted against measured, %", zero=True),
        _both(spaced, uniform, error),
        "A slope or a bend would be something that the correction misses.",
    )


def _both(spaced: Validation, uniform: Validation, place: Place) -> tuple[Series, ...]:
    return (
        Series("spaced from fastest to slowest", marks(spaced, place)),
        Series("drawn uniformly", marks(uniform, place), style="rings"),
    )


def _macs_chart(
    pairs: Sequence[Pair], existing: tuple[Series, ...], by_macs: float, by_table: float
) -> Chart:
    points = tuple(
        Point(
            _macs(pair),
            pair.measured,
            f"{describe(pair.architecture)}\n{number(_macs(pair))} MACs, {pair.measured:.3f} ms",
            pair.architecture.id,
        )
        for pair in pairs
    )
    wrong, ours = (50 * (1 - tau) for tau in (by_macs, by_table))
    return Chart(
        "MACs against measured time: why measuring matters",
        Axis("multiply-accumulates", log=True),
        Axis("measured, ms", log=True),
        (Series("networks of the space" if existing else "", points), *existing),
        f"Ordered by MACs, {wrong:.1f} % of all pairs of networks are in the wrong order; "
        f"ordered by this table, {ours:.1f} %.",
    )


def _drift(pairs: Sequence[Pair]) -> Chart:
    """Every round against each network's own median: a level that moves is a machine that moves."""
    rounds: dict[int, list[float]] = defaultdict(list)
    for pair in pairs:
        middle = statistics.median(pair.samples)
        for index, sample in enumerate(pair.samples):
            rounds[index].append(100 * (sample / middle - 1))
    dots = tuple(
        Point(index + 1, value, f"round {index + 1}: {value:+.1f} % of that network's median")
        for index, values in rounds.items()
        for value in values
    )
    level = tuple(
        Point(index + 1, statistics.median(values)) for index, values in sorted(rounds.items())
    )
    return Chart(
        "Residuals over time",
        Axis("round of measurement", zero=True),
        Axis("sample against its network's median, %", zero=True),
        (
            Series("one network, one round", dots, colour="quiet"),
            Series("median of the round", level, style="line", colour="strong"),
        ),
        "A level line means that the machine did not drift while measuring.",
    )


def _costs(found: LatencyTable) -> list[Chart]:
    kinds: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for operation, timing in found.entries:
        middle = timing.device.median
        width = _width(operation)
        group = f"{_tokens(operation)} tokens" if _tokens(operation) else ""
        words = f"{operation}\n{middle:.4f} ms, {number(operation.macs)} MACs per image"
        kinds[operation.kind][group].append(Point(width, middle, words))
    return [
        Chart(
            f"Cost of {kind} by width",
            Axis("channels"),
            Axis("median, ms", zero=True),
            tuple(
                Series(name, tuple(points))
                for name, points in sorted(groups.items(), key=lambda g: _count(g[0]))
            ),
            "Several points over one width differ in heads, hidden channels or output width.",
        )
        for kind, groups in kinds.items()
    ]


def _width(operation: Operation) -> float:
    return float(next(getattr(operation, name) for name in WIDTHS if hasattr(operation, name)))


def _tokens(operation: Operation) -> int:
    return getattr(operation, "tokens", 0)


def _count(name: str) -> int:
    return int(name.split()[0]) if name else 0
