"""Existing models beside a search's networks: what the table holds, what the proof measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vitresnas.files import Fields, JsonObject
from vitresnas.latency import LatencyTable
from vitresnas.latency.compared import ExistingModel
from vitresnas.search.candidate import Speed, optional_number, speed_to_json, take_speed


@dataclass(frozen=True)
class ComparedModel:
    """An existing model as the answer: its speed by the table, and as timed with the finalists.

    Either may be missing: a table need not hold the model, and a search with the table of another
    device times nothing.
    """

    model: ExistingModel
    table_images_per_second: float | None = None
    speed: Speed | None = None

    @property
    def images_per_second(self) -> float | None:
        """As timed here, else as the table has it."""
        return self.speed.images_per_second if self.speed else self.table_images_per_second

    def __str__(self) -> str:
        if self.speed:
            low, high = self.speed.interval_95
            speed = f"{self.speed.images_per_second:,.0f} images/s ({low:,.0f} to {high:,.0f})"
            return f"{self.model}: {speed}, {self.speed.relative:.2f}x the largest"
        if self.table_images_per_second:
            return f"{self.model}: {self.table_images_per_second:,.0f} images/s by the table"
        return f"{self.model}: not timed"

    def to_json(self) -> JsonObject:
        return {
            **self.model.to_json(),
            "table_images_per_second": self.table_images_per_second,
            **speed_to_json(self.speed),
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> ComparedModel:
        fields = Fields(value, where)
        found = cls(
            ExistingModel.take(fields),
            optional_number(fields, "table_images_per_second"),
            take_speed(fields, where),
        )
        fields.done()
        return found


def from_table(models: Iterable[ExistingModel], table: LatencyTable) -> tuple[ComparedModel, ...]:
    """What a table says of models, those that it does not hold included.

    By the same statistic as its predictions, so that both may stand on one axis.
    """
    known = {found.model.label: found for found in table.compared}
    return tuple(
        ComparedModel(
            model,
            1000.0 * known[model.label].batch_size / known[model.label].milliseconds
            if model.label in known
            else None,
        )
        for model in models
    )


def untimed(found: Sequence[ComparedModel]) -> list[str]:
    """The models that have no speed at all."""
    return [one.model.label for one in found if one.images_per_second is None]
