"""Drift: did the machine itself change speed while it was measured? Told by an anchor workload.

The anchor is the same small work again and again, all through a run. Single readings are rough, by
a fifth of their length on a shared machine, so it is running medians that are looked at: short ones
for large departures, long ones for small departures that last. Their level is the middle of the
tightest third, of the fastest one where several are as tight: what the machine does when nothing
disturbs it, also where half of the run was disturbed. The roughness of a reading is told by
neighbours, whose difference holds hardly any drift. A stretch that stays off the level by more than
roughness explains is *drifted*; whatever was measured inside is measured again (`rounds.repeat`).
No torch in here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject
from vitresnas.latency.timing import positive

LEAST_READINGS = 8  # fewer tell nothing
# Readings under one running median, and the least departure from the level that is worth repeating.
SCALES = ((5, 0.05), (25, 0.1))
_READINGS_PER_WINDOW = 3  # windows that a run must hold for a scale to be looked at
_SIGMAS = 4.0
_STRETCH_READINGS = 3
_AS_TIGHT = 2.0  # times the width of the tightest third
_TIGHT = 0.01  # thirds as narrow as this are all tight
_OF_A_MEDIAN = 1.2533  # sigmas of a mean in one of a median, of normal values
_OF_NEIGHBOURS = 1.4826 / math.sqrt(2.0)  # from the median distance of two to a sigma of one


@dataclass(frozen=True)
class Reading:
    """One reading of the anchor, `at` seconds of measuring into the run, in milliseconds.

    `waiting`: processes of others that wanted a CPU at that moment; None where nobody tells.
    """

    at: float
    host: float
    device: float
    waiting: int | None = None

    def to_json(self) -> list[float | int | None]:
        return [self.at, self.host, self.device, self.waiting]


@dataclass(frozen=True)
class Stretch:
    """Seconds of measuring in which the anchor was off its level, by `percent` in the middle."""

    begin: float
    end: float
    percent: float

    def holds(self, at: float) -> bool:
        return self.begin < at <= self.end


def level_and_noise(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """What an undisturbed anchor takes, and the standard deviation of one reading, both alike."""
    times = np.asarray(values, dtype=float)
    ordered = np.sort(_smooth(times, _scales(len(times))[-1][0]))
    third = max(len(ordered) // 3, 2)
    # Relative widths: a machine half as fast is twice as rough.
    widths = ordered[third - 1 :] / ordered[: len(ordered) - third + 1] - 1.0
    first = int(np.argmax(widths <= max(_AS_TIGHT * widths.min(), _TIGHT)))
    end = first + int(np.argmin(widths[first : first + third])) + third
    level = float(np.median(ordered[end - third : end]))
    rough = _OF_NEIGHBOURS * float(np.median(np.abs(np.diff(np.log(times)))))
    return level, level * rough


def tolerance(noise: float, scale: tuple[int, float] = SCALES[0]) -> float:
    """The relative departure of a running median that roughness does not explain.

    `noise`: of one reading, relative to the level.
    """
    window, least = scale
    return max(least, _SIGMAS * noise * _OF_A_MEDIAN / math.sqrt(window))


def _scales(readings: int) -> list[tuple[int, float]]:
    fine, *rest = SCALES
    return [fine, *(s for s in rest if readings >= _READINGS_PER_WINDOW * s[0])]


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running medians; at both ends over what is there."""
    half = window // 2
    smooth = np.array(values)
    for i in {*range(half), *range(len(values) - half, len(values))} & {*range(len(values))}:
        smooth[i] = np.median(values[max(i - half, 0) : i + half + 1])
    if len(values) >= window:
        inner = np.lib.stride_tricks.sliding_window_view(values, window)
        smooth[half : len(values) - half] = np.median(inner, axis=1)
    return smooth


def drifted(readings: Sequence[Reading]) -> tuple[Stretch, ...]:
    """Where the anchor departs, in host or in device time, in order and without overlaps."""
    if len(readings) < LEAST_READINGS:
        return ()
    off = np.zeros(len(readings))
    for channel in ("host", "device"):
        values = np.array([getattr(reading, channel) for reading in readings])
        departure = _departure(values)
        off = np.where(np.abs(departure) > np.abs(off), departure, off)
    stretches = []
    last = len(readings) - 1
    for is_off, group in groupby(range(len(readings)), key=lambda index: bool(off[index])):
        found = list(group)
        if not is_off or len(found) < _STRETCH_READINGS:
            continue
        # The change happened somewhere between two readings: both ends are given to the stretch.
        begin = readings[found[0] - 1].at if found[0] else -1.0
        end = readings[min(found[-1] + 1, last)].at if found[-1] < last else float("inf")
        stretches.append(Stretch(begin, end, 100.0 * float(np.median(off[found]))))
    return tuple(stretches)


def _departure(values: np.ndarray) -> np.ndarray:
    """Relative distance of the running medians from the level; 0 within the noise."""
    level, noise = level_and_noise(values)
    found = np.zeros(len(values))
    for window, least in _scales(len(values)):
        departure = _smooth(values, window) / level - 1.0
        bound = tolerance(noise / level, (window, least))
        new = np.where(np.abs(departure) > bound, departure, 0.0)
        found = np.where(found == 0.0, new, found)
    return found


@dataclass(frozen=True)
class Drift:
    """What the anchor said about one run, as tables keep it.

    Of `measured` measurements those in drifted stretches do not count; where too few others were
    there, `repeated` were taken again. `left` are still lacking: the time allowed was over.
    """

    readings: tuple[Reading, ...]
    stretches: tuple[Stretch, ...]
    measured: int
    repeated: int
    left: int

    @property
    def level(self) -> float | None:
        """The anchor's milliseconds on the device; None after too short a run."""
        if len(self.readings) < LEAST_READINGS:
            return None
        return level_and_noise([reading.device for reading in self.readings])[0]

    def __str__(self) -> str:
        if len(self.readings) < LEAST_READINGS:
            return "drift: the run was too short to tell"
        level, noise = level_and_noise([reading.device for reading in self.readings])
        anchor = f"anchor {level:.3f} ms, noise {100.0 * noise / level:.1f} %"
        if not self.stretches:
            return f"drift: none ({anchor}){self._crowd()}"
        end = self.readings[-1].at
        seconds = sum(min(one.end, end) - max(one.begin, 0.0) for one in self.stretches)
        worst = max((one.percent for one in self.stretches), key=abs)
        left = f"; {self.left} still lack enough steady measurements" if self.left else ""
        return (
            f"drift: the machine was off its level for {seconds:.0f} of {end:.0f} s, by up to "
            f"{worst:+.0f} % ({anchor}); what was measured then is set aside, and {self.repeated} "
            f"of {self.measured} measurements were taken again{left}{self._crowd()}"
        )

    def _crowd(self) -> str:
        """Others that wanted a CPU, whether or not they got one."""
        known = [reading.waiting for reading in self.readings if reading.waiting is not None]
        share = float(np.mean([waiting > 0 for waiting in known])) if known else 0.0
        if share < 0.1:
            return ""
        return f"; other processes wanted a CPU during {share:.0%} of the run"

    def to_json(self) -> JsonObject:
        return {
            "readings": [reading.to_json() for reading in self.readings],
            "stretches": [[_edge(s.begin), _edge(s.end), s.percent] for s in self.stretches],
            "measured": self.measured,
            "repeated": self.repeated,
            "left": self.left,
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Drift:
        reader = Fields(value, where)
        drift = cls(
            readings=reader.items("readings", _reading),
            stretches=reader.items("stretches", _stretch),
            measured=reader.integer("measured", minimum=0),
            repeated=reader.integer("repeated", minimum=0),
            left=reader.integer("left", minimum=0),
        )
        reader.done()
        return drift


def _edge(seconds: float) -> float | None:
    """The ends of a run are not known numbers: nothing was read before or after them."""
    return seconds if 0.0 <= seconds < float("inf") else None


def _reading(value: object, where: str) -> Reading:
    if not isinstance(value, list) or len(value) != 4:
        raise FileFormatError(f"{where} is {value!r}, expected [seconds, host, device, waiting]")
    fields = Fields(dict(zip(("at", "host", "device", "waiting"), value, strict=True)), where)
    return Reading(
        fields.number("at", minimum=0.0),
        positive(fields, "host"),
        positive(fields, "device"),
        None if value[3] is None else fields.integer("waiting", minimum=0),
    )


def _stretch(value: object, where: str) -> Stretch:
    if not isinstance(value, list) or len(value) != 3:
        raise FileFormatError(f"{where} is {value!r}, expected [begin, end, percent]")
    begin, end, percent = value
    fields = Fields({"begin": begin, "end": end, "percent": percent}, where)
    return Stretch(
        -1.0 if begin is None else fields.number("begin", minimum=0.0),
        float("inf") if end is None else fields.number("end", minimum=0.0),
        fields.number("percent"),
    )
