"""What the device said about itself during a run: clocks, throttling, heat, power, energy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from vitresnas.files import JsonObject
from vitresnas.latency.nvml import Nvml, Telemetry, open_nvml, worrying
from vitresnas.latency.runtime import Call
from vitresnas.latency.statistics import Clock

MOST_LOOKS = 400  # kept in a table; further ones replace every second of them
HOW = "NVML's energy counter"
_LEAST_SECONDS_PER_NETWORK = 0.2  # the counter itself moves about every 20 to 100 ms
_MOST_SECONDS_PER_NETWORK = 1.0
_IDLE_SECONDS = 1.0


class Recorder:
    """Looks at the device when it is given the occasion; without NVML it records nothing."""

    def __init__(
        self, nvml: Nvml | None, *, interval: float = 0.25, clock: Clock = time.perf_counter
    ) -> None:
        self.nvml, self._interval, self._clock = nvml, interval, clock
        self._begin, self._every = clock(), 1
        self._looks: list[tuple[float, Telemetry]] = []
        self._asked, self._last = 0, -float("inf")

    def occasion(self) -> None:
        now = self._clock()
        if self.nvml is None or now - self._last < self._interval:
            return
        self._last = now
        self._asked += 1
        if self._asked % self._every == 0:
            self._looks.append((round(now - self._begin, 3), self.nvml.look()))
            if len(self._looks) > MOST_LOOKS:
                self._looks = self._looks[::2]
                self._every *= 2

    def to_json(self) -> JsonObject | None:
        """Every look with its second of the run, the first at the start; None without NVML."""
        if self.nvml is None:
            return None
        self._last = -float("inf")
        self._every = 1
        self.occasion()  # and the last at the end
        return {"looks": [{"at": at, **look.to_json()} for at, look in self._looks]}

    def warning(self) -> str | None:
        return worrying([look for _, look in self._looks])


def measure_energy(
    nvml: Nvml,
    calls: Mapping[str, Call],
    batch_size: int,
    synchronize: Callable[[], object],
    *,
    seconds: float,
    clock: Clock = time.perf_counter,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[dict[str, float], float] | None:
    """Joules per image of each call run back to back, and the watts drawn while idle before.

    seconds: for all calls together, within bounds. None where the device does not count energy.
    """
    before = nvml.joules()
    if before is None:
        return None
    begin = clock()
    pause(_IDLE_SECONDS)
    idle = (_counted(nvml) - before) / (clock() - begin)
    each = seconds / len(calls)
    each = min(max(each, _LEAST_SECONDS_PER_NETWORK), _MOST_SECONDS_PER_NETWORK)
    found = {}
    for name, call in calls.items():
        call()
        synchronize()
        start, begin, images = _counted(nvml), clock(), 0
        while clock() - begin < each:
            call()
            synchronize()
            images += batch_size
        found[name] = (_counted(nvml) - start) / images
    return found, idle


def _counted(nvml: Nvml) -> float:
    joules = nvml.joules()
    assert joules is not None, "a counter that answered once goes on answering"
    return joules


def nvml_of(device: torch.device) -> Nvml | None:
    """NVML for a device of torch's."""
    if device.type != "cuda":
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return open_nvml(str(uuid) if uuid else None, device.index or 0)
