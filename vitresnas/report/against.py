"""Two tables of one condition on the same networks: a transferred one beside the full one, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vitresnas.errors import InputError
from vitresnas.latency.table import LatencyTable
from vitresnas.latency.validation import Validation
from vitresnas.report.chart import Chart, Series
from vitresnas.report.page import charts, section, table, text
from vitresnas.report.pairs import marks
from vitresnas.report.scale import Axis


def beside(
    tables: Sequence[LatencyTable], others: Sequence[LatencyTable], names: tuple[str, str]
) -> dict[tuple[str | int, ...], str]:
    """A section for every condition that both files hold, by the condition's key.

    `names`: of the two files. Raises InputError where they share no condition, MissingLatency where
    one of two tables lacks a piece.
    """
    by_key = {other.condition.key: other for other in others}
    shared = [one for one in tables if one.condition.key in by_key]
    if not shared:
        raise InputError(
            f"{names[1]} holds no condition of {names[0]}, so their errors cannot be "
            f"compared: give a table of {tables[0].condition}"
        )
    return {one.condition.key: _section(one, by_key[one.condition.key], names) for one in shared}


def _section(ours: LatencyTable, theirs: LatencyTable, names: tuple[str, str]) -> str:
    judge = 0 if theirs.transfer and not ours.transfer else 1  # a full one, if there is one
    networks = _held_out((ours, theirs)[judge], (theirs, ours)[judge])
    checks = [_priced(one, networks) for one in (ours, theirs)]
    return section(
        f"Beside {names[1]}",
        text(
            f"Both tables on the {len(networks.pairs)} held-out networks that {names[judge]} "
            "measured under this condition; neither was fitted to them."
        ),
        table(
            ("table", "mean error, %", "worst, %", "Kendall tau", "made"),
            [
                (
                    name,
                    f"{check.mean_absolute_percentage_error:.2f}",
                    f"{check.worst_percent:.2f}",
                    f"{check.kendall_tau:.3f}",
                    str(one.transfer or "measured in full"),
                )
                for name, check, one in zip(names, checks, (ours, theirs), strict=True)
            ],
        ),
        charts(*(_chart(name, check) for name, check in zip(names, checks, strict=True))),
    )


def _held_out(judge: LatencyTable, other: LatencyTable) -> Validation:
    """Held-out networks of the one that the other, by chance, was not fitted on either."""
    fitted = other.calibration_networks.pairs if other.calibration_networks else ()
    known = {pair.architecture for pair in fitted}
    pairs = (pair for pair in judge.validation.pairs if pair.architecture not in known)
    return Validation(tuple(pairs))


def _priced(found: LatencyTable, networks: Validation) -> Validation:
    """The same networks and measurements, predicted by this table."""
    return Validation(
        tuple(
            replace(pair, predicted=found.milliseconds(pair.architecture))
            for pair in networks.pairs
        )
    )


def _chart(name: str, check: Validation) -> Chart:
    return Chart(
        f"Predicted by {name}",
        Axis("predicted, ms", log=True),
        Axis("measured, ms", log=True),
        (Series("", marks(check)),),
        f"{check.mean_absolute_percentage_error:.1f} % off on average, "
        f"{check.worst_percent:.1f} % at worst; on the dashed line the table is right.",
        diagonal=True,
    )
