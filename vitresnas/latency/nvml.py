"""Clocks, throttling, temperature, power and energy of an NVIDIA GPU, by NVML through ctypes.

The library comes with the driver, so nothing is to be installed; where it is missing, or refuses a
question, that answer is None and a table says so. Recorded, never set: locked clocks need root and
still drop at the power limit. No torch in here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from vitresnas.files import JsonObject

_LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0
_SM, _MEMORY = 1, 2  # nvmlClockType_t
_GPU_TEMPERATURE = 0  # nvmlTemperatureSensors_t

# nvmlClocksEventReasons: why clocks are below what was asked for.
REASONS = {
    0x0001: "idle",
    0x0002: "application clocks",
    0x0004: "power cap",
    0x0008: "hardware slowdown",
    0x0010: "sync boost",
    0x0020: "thermal, software",
    0x0040: "thermal, hardware",
    0x0080: "power brake",
    0x0100: "display clocks",
}
_HARMLESS = {"idle", "application clocks", "display clocks"}


@dataclass(frozen=True)
class Telemetry:
    """One look at the device; None where it does not tell."""

    sm_mhz: int | None = None
    memory_mhz: int | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    throttled: tuple[str, ...] | None = None

    def to_json(self) -> JsonObject:
        return {**asdict(self), "throttled": self.throttled and list(self.throttled)}


class Nvml:
    """One GPU. `library` is the loaded C library, or a stand-in with the same functions."""

    def __init__(self, library: Any, uuid: str | None = None, index: int = 0) -> None:
        """uuid: as torch tells it, for the index differs where CUDA_VISIBLE_DEVICES is set."""
        self._library = library
        self._handle = ctypes.c_void_p()
        handle = ctypes.byref(self._handle)
        if library.nvmlInit_v2() != _SUCCESS:
            raise OSError("NVML does not start")
        named = (
            uuid is not None
            and library.nvmlDeviceGetHandleByUUID(_prefixed(uuid).encode(), handle) == _SUCCESS
        )
        if not named and library.nvmlDeviceGetHandleByIndex_v2(index, handle) != _SUCCESS:
            raise OSError(f"NVML knows no device {index}")

    def look(self) -> Telemetry:
        power = self._number("nvmlDeviceGetPowerUsage")  # milliwatts
        reasons = self._reasons()
        return Telemetry(
            sm_mhz=self._number("nvmlDeviceGetClockInfo", _SM),
            memory_mhz=self._number("nvmlDeviceGetClockInfo", _MEMORY),
            temperature_celsius=self._number("nvmlDeviceGetTemperature", _GPU_TEMPERATURE),
            power_watts=None if power is None else power / 1000.0,
            throttled=reasons,
        )

    def joules(self) -> float | None:
        """Energy since the driver was loaded (Volta and later)."""
        millijoules = self._number("nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong)
        return None if millijoules is None else millijoules / 1000.0

    def _reasons(self) -> tuple[str, ...] | None:
        for name in ("EventReasons", "ThrottleReasons"):  # renamed in 2023; old drivers lack it
            bits = self._number(f"nvmlDeviceGetCurrentClocks{name}", kind=ctypes.c_ulonglong)
            if bits is not None:
                return tuple(text for bit, text in REASONS.items() if bits & bit)
        return None

    def _number(
        self, function: str, *arguments: int, kind: Callable[[], Any] = ctypes.c_uint
    ) -> int | None:
        """What a function answers, or None where it is missing or refuses."""
        answer = kind()
        try:
            status = getattr(self._library, function)(
                self._handle, *arguments, ctypes.byref(answer)
            )
        except AttributeError:
            return None
        return int(answer.value) if status == _SUCCESS else None


def open_nvml(uuid: str | None = None, index: int = 0) -> Nvml | None:
    """NVML for one GPU, or None where there is no driver."""
    try:
        return Nvml(ctypes.CDLL(_LIBRARY), uuid, index)
    except OSError:
        return None


def worrying(looks: list[Telemetry]) -> str | None:
    """A sentence where clocks were held back for a reason that another hour would not have."""
    found = sorted({reason for look in looks for reason in look.throttled or ()} - _HARMLESS)
    if not found:
        return None
    share = sum(bool(set(look.throttled or ()) - _HARMLESS) for look in looks) / len(looks)
    return (
        f"WARNING: the GPU's clocks were held back in {share:.0%} of the readings "
        f"({', '.join(found)}): cool it or raise its power limit for numbers to keep"
    )


def _prefixed(uuid: str) -> str:
    return uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
