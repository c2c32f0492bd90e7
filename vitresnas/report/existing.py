"""Existing models beside the networks of a table or of a search: tables and marks."""

from __future__ import annotations

from collections.abc import Sequence

from vitresnas.latency.compared import Compared, ExistingModel
from vitresnas.report.chart import Point, Series
from vitresnas.report.page import section, table
from vitresnas.report.scale import number
from vitresnas.search.compared import ComparedModel

_MODEL = ("model", "image size", "classes", "MACs", "params")


def timed_section(found: Sequence[Compared]) -> str:
    """What a table holds of them; nothing where it holds none."""
    if not found:
        return ""
    rows = [
        (
            *_cells(one.model),
            f"{one.milliseconds:.3f}",
            _speed(one.images_per_second, one.interval_95),
        )
        for one in found
    ]
    return section("Existing models", table((*_MODEL, "ms", "images/s (95 %)"), rows))


def timed_series(found: Sequence[Compared]) -> tuple[Series, ...]:
    """Marks over MACs per image and milliseconds per batch."""
    points = tuple(
        Point(one.model.macs, one.milliseconds, f"{one}\n{number(one.model.macs)} MACs")
        for one in found
    )
    return (Series("existing models", points, "diamonds", "c3"),) if points else ()


def compared_table(found: Sequence[ComparedModel]) -> str:
    """What a search found about them; nothing where it asked for none."""
    if not found:
        return ""
    head = (*_MODEL, "measured images/s (95 %)", "x largest", "by the table")
    rows = [
        (
            *_cells(one.model),
            _speed(one.speed.images_per_second, one.speed.interval_95) if one.speed else "",
            f"{one.speed.relative:.2f}" if one.speed else "",
            number(one.table_images_per_second) if one.table_images_per_second else "",
        )
        for one in found
    ]
    return "<h3>Existing models</h3>" + table(head, rows)


def _cells(model: ExistingModel) -> tuple[str, ...]:
    return (
        model.name,
        str(model.image_size),
        str(model.classes),
        number(model.macs),
        number(model.parameters),
    )


def _speed(median: float, interval: tuple[float, float]) -> str:
    return f"{median:,.0f} ({interval[0]:,.0f} to {interval[1]:,.0f})"
