"""Was the machine itself the same all through a measurement? The anchor over time."""

from __future__ import annotations

from vitresnas.latency.drift import Drift
from vitresnas.report.chart import Chart, Point, Series
from vitresnas.report.scale import Axis


def anchor_chart(drift: Drift) -> Chart:
    """Every reading of the anchor over the seconds of measuring, drifted stretches in red."""
    steady: list[Point] = []
    off: list[Point] = []
    for reading in drift.readings:
        words = f"{reading.at:.1f} s: {reading.host:.3f} ms"
        if reading.device != reading.host:
            words += f", {reading.device:.3f} ms on the device"
        if reading.waiting:
            words += f"; {reading.waiting} other processes wanted a CPU"
        inside = any(stretch.holds(reading.at) for stretch in drift.stretches)
        (off if inside else steady).append(Point(reading.at, reading.host, words))
    level = drift.level
    ends = [point.x for point in (*steady, *off)]
    line = [Point(end, level) for end in (min(ends), max(ends))] if level and ends else []
    return Chart(
        "The machine's own speed over time",
        Axis("seconds of measuring", zero=True),
        Axis("one reading of the anchor, ms", log=True),
        (
            Series("anchor", tuple(steady), colour="quiet"),
            Series("drifted", tuple(off), "triangles", "alarm"),
            Series("level", tuple(line), style="line", colour="strong"),
        ),
        "The anchor is the same small work again and again. What was measured while it was off its "
        "level was measured again, as far as time allowed.",
    )
