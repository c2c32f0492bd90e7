"""Real clocks for the proof: networks extracted from the super-network, timed interleaved here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vitresnas.doors import say
from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, append_line, read_lines
from vitresnas.latency import Condition, Measurement
from vitresnas.latency.compared import ExistingModel
from vitresnas.latency.cores import threads
from vitresnas.latency.decide import LENGTHS, measure_until
from vitresnas.latency.existing import guests
from vitresnas.latency.measure import Guest, time_interleaved
from vitresnas.latency.timing import take_samples
from vitresnas.search.check import judge
from vitresnas.search.constraint import Target
from vitresnas.search.prove import Timer, speed_of
from vitresnas.space import Architecture
from vitresnas.supernet import Supernet

SECONDS = 15.0
_ROUNDS = 200  # at most, in the first look


def extracted_timer(
    supernet: Supernet,
    condition: Condition,
    device: str,
    *,
    models: Sequence[ExistingModel] = (),
    seconds: float = SECONDS,
    on_round: Callable[[int, float], None] | None = None,
) -> Timer:
    """Times sub-networks as the stand-alone networks they become, under the table's condition.

    models: existing ones that take turns with them; their times come last.
    """

    def timer(architectures: Sequence[Architecture]) -> list[Measurement]:
        networks = {found.id: supernet.extract(found) for found in architectures}
        images_BCHW = example_images(architectures[0], condition.batch_size, device)
        beside = guests(models, condition.batch_size, device)
        with threads(condition.threads):
            times = time_interleaved(
                networks,
                images_BCHW,
                beside=beside,
                runtime=condition.runtime,
                dtype=condition.dtype,
                seconds=seconds,
                on_round=on_round,
            )
        return [times[name] for name in (*networks, *beside)]

    return timer


def time_until_decided(
    networks: Mapping[str, nn.Module],
    images_BCHW: Tensor,
    target: Target,
    *,
    beside: Mapping[str, Guest],
    runtime: str,
    dtype: str,
    seconds: float,
) -> tuple[dict[str, Measurement], int]:
    """Time "model", beside "largest" where that is there, until `target` is decided; and how many
    looks that took, the first of `seconds` (latency/decide.py).

    beside: existing models, which take turns in the first look.
    """

    def measure(number: int, length: int) -> Mapping[str, Measurement]:
        return time_interleaved(
            networks,
            images_BCHW,
            beside=beside if number == 1 else {},
            runtime=runtime,
            dtype=dtype,
            seconds=seconds * length,
            maximum_rounds=_ROUNDS * length,
            precision=0.01 if number == 1 else 0.0,  # a narrow interval may hold the target, too
            seed=number,
        )

    def interval(times: Mapping[str, Measurement]) -> tuple[float, float]:
        reference = times.get("largest", times["model"])
        return speed_of(times["model"], reference, len(images_BCHW)).judged_by(target)

    def decided(times: Mapping[str, Measurement]) -> bool:
        return judge(interval(times), target.amount) != "undecided"

    def announce(times: Mapping[str, Measurement], number: int) -> None:
        low, high = interval(times)
        say(
            f"{target} lies between {low:,.4g} and {high:,.4g}: timing for about "
            f"{seconds * LENGTHS[number - 1]:.3g} s more, look {number} of at most {len(LENGTHS)}"
        )

    return measure_until(decided, measure, announce)


def remembered(timer: Timer, path: Path, models: Sequence[ExistingModel] = ()) -> Timer:
    """The same timer, its answers kept in an append-only log.

    A proof that is interrupted after a round then goes on from the same measured bias. models: the
    existing ones that the timer times too.
    """
    labels = tuple(model.label for model in models)
    known: dict[tuple[str, ...], list[Measurement]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = Fields(line, f"{path}, line {number}")
        ids, rows = fields.take("ids"), fields.take("milliseconds")
        priority = fields.text("priority")
        fields.done()
        if not isinstance(ids, list) or not isinstance(rows, list) or len(ids) != len(rows):
            raise FileFormatError(f"line {number} of {path} is not a measurement: remove the file")
        cells = (Fields({"milliseconds": row}, f"{path}, line {number}") for row in rows)
        known[tuple(ids)] = [
            Measurement(take_samples(cell, "milliseconds"), priority) for cell in cells
        ]

    def timer_with_memory(architectures: Sequence[Architecture]) -> Sequence[Measurement]:
        ids = (*(found.id for found in architectures), *labels)
        if ids not in known:
            known[ids] = list(timer(architectures))
            rows = [list(time.samples_milliseconds) for time in known[ids]]
            priority = known[ids][0].priority
            append_line(path, {"ids": list(ids), "milliseconds": rows, "priority": priority})
        return known[ids]

    return timer_with_memory


def example_images(architecture: Architecture, batch_size: int, device: str) -> Tensor:
    """Standard normal images (B, C, S, S): speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    side = architecture.image_size
    images_BCHW = torch.randn(batch_size, architecture.channels, side, side, generator=generator)
    return images_BCHW.to(device)
