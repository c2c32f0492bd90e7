"""One measurement of one call, on a CPU or on a CUDA device."""

from __future__ import annotations

import time
from typing import Protocol

import torch

from vitresnas.latency.runtime import Call
from vitresnas.latency.statistics import Clock
from vitresnas.latency.timing import milliseconds

# Long enough to enqueue the few kernels of one piece behind it; about 0.5 ms at 2 GHz.
_HOLD_CYCLES = 1_000_000
_BACK_TO_BACK = 4


class Timer(Protocol):
    """Both answers are (host, device) milliseconds of one call."""

    def piece(self, call: Call) -> tuple[float, float]:
        """A part of a network: host and device apart."""

    def network(self, call: Call) -> tuple[float, float]:
        """A whole forward pass as a user runs it, one after the other."""


class CpuTimer:
    """The host is the device and runs synchronously: one clock tells both."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock

    def piece(self, call: Call) -> tuple[float, float]:
        begin = self._clock()
        call()
        taken = milliseconds(self._clock() - begin)
        return taken, taken

    network = piece


class CudaTimer:
    """Host time by the clock until the call returns, device time by events on the stream."""

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter) -> None:
        self._device, self._clock = device, clock

    def piece(self, call: Call) -> tuple[float, float]:
        with torch.cuda.device(self._device):  # events are of the current device's stream
            return self._piece(call)

    def network(self, call: Call) -> tuple[float, float]:
        with torch.cuda.device(self._device):
            return self._network(call)

    def _piece(self, call: Call) -> tuple[float, float]:
        begin_event, end_event = self._events()
        torch.cuda.synchronize(self._device)
        # The device is held while the host enqueues, so that the events enclose work and no
        # launch gaps; without this, small pieces would show the host's time twice.
        torch.cuda._sleep(_HOLD_CYCLES)
        begin_event.record()
        begin = self._clock()
        call()
        host = milliseconds(self._clock() - begin)
        end_event.record()
        torch.cuda.synchronize(self._device)
        return host, max(begin_event.elapsed_time(end_event), 1e-6)

    def _network(self, call: Call) -> tuple[float, float]:
        begin_event, end_event = self._events()
        torch.cuda.synchronize(self._device)
        begin = self._clock()
        begin_event.record()
        for _ in range(_BACK_TO_BACK):
            call()
        end_event.record()
        torch.cuda.synchronize(self._device)
        host = milliseconds((self._clock() - begin) / _BACK_TO_BACK)
        return host, max(begin_event.elapsed_time(end_event) / _BACK_TO_BACK, 1e-6)

    def _events(self) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def timer_for(device: torch.device, clock: Clock = time.perf_counter) -> Timer:
    return CudaTimer(device, clock) if device.type == "cuda" else CpuTimer(clock)
