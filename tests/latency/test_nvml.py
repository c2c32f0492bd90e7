"""NVML through a stand-in library: the real parsing, refusals and old drivers included."""

import json
from itertools import pairwise
from random import Random

import pytest

from vitresnas.latency.calibration import features
from vitresnas.latency.energy import Energy, fit_energy
from vitresnas.latency.nvml import Nvml, open_nvml, worrying
from vitresnas.latency.telemetry import MOST_LOOKS, Recorder, measure_energy
from vitresnas.latency.timing import Timing
from vitresnas.space import load_space, operations

NOT_SUPPORTED = 3


class FakeLibrary:
    """Answers as libnvidia-ml does: a status, and the number behind the last pointer."""

    def __init__(self):
        self.uuids, self.indices = [], []
        self.sm, self.milliwatts, self.millijoules, self.reasons = 1980, 650_500, 5_000_000, 0x4

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):
        self.uuids.append(uuid)
        return 0 if uuid == b"GPU-abc" else NOT_SUPPORTED

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        self.indices.append(index)
        return 0

    def nvmlDeviceGetClockInfo(self, handle, kind, answer):
        return self._tell(answer, {1: self.sm, 2: 2619}[kind])

    def nvmlDeviceGetTemperature(self, handle, sensor, answer):
        return self._tell(answer, 61)

    def nvmlDeviceGetPowerUsage(self, handle, answer):
        return self._tell(answer, self.milliwatts)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle, answer):
        return self._tell(answer, self.reasons)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, answer):
        return self._tell(answer, int(self.millijoules))

    @staticmethod
    def _tell(answer, value):
        answer._obj.value = value
        return 0


class OldLibrary(FakeLibrary):
    """A driver of 2021 on a card that counts neither energy nor power."""

    nvmlDeviceGetCurrentClocksEventReasons = property()  # raises AttributeError

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle, answer):
        return self._tell(answer, 0x40 | 0x1)

    def nvmlDeviceGetPowerUsage(self, handle, answer):
        return NOT_SUPPORTED

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, answer):
        return NOT_SUPPORTED


def test_a_look_reads_every_number_in_its_unit():
    look = Nvml(FakeLibrary(), "abc").look()
    assert (look.sm_mhz, look.memory_mhz, look.temperature_celsius) == (1980, 2619, 61)
    assert look.power_watts == 650.5 and look.throttled == ("power cap",)
    assert json.loads(json.dumps(look.to_json()))["throttled"] == ["power cap"]
    assert Nvml(FakeLibrary()).joules() == 5000.0


def test_the_device_is_found_by_its_uuid_else_by_its_index():
    library = FakeLibrary()
    Nvml(library, "abc", 3)
    assert library.uuids == [b"GPU-abc"] and library.indices == []
    Nvml(library, "GPU-unknown", 3)
    assert library.indices == [3]


def test_what_an_old_driver_does_not_tell_is_none():
    nvml = Nvml(OldLibrary())
    look = nvml.look()
    assert look.power_watts is None and nvml.joules() is None
    assert look.throttled == ("idle", "thermal, hardware")
    assert measure_energy(nvml, {"a": lambda: None}, 1, lambda: None, seconds=1.0) is None


def test_a_library_that_does_not_start_or_is_missing_is_no_nvml(monkeypatch):
    library = FakeLibrary()
    monkeypatch.setattr(library, "nvmlInit_v2", lambda: 9)
    with pytest.raises(OSError, match="does not start"):
        Nvml(library)
    monkeypatch.setattr("vitresnas.latency.nvml._LIBRARY", "libnothing.so.0")
    assert open_nvml() is None


def test_held_back_clocks_are_warned_about_and_idle_ones_are_not():
    library = FakeLibrary()
    nvml = Nvml(library)
    held = nvml.look()
    library.reasons = 0x1
    assert worrying([nvml.look()]) is None
    assert "50%" in (worrying([held, nvml.look()]) or "") and "power cap" in str(worrying([held]))


def test_a_recorder_looks_at_the_start_all_through_and_at_the_end_and_stays_small():
    now = 0.0
    library = FakeLibrary()
    recorder = Recorder(Nvml(library), interval=0.25, clock=lambda: now)
    for tick in range(20_000):
        now, library.sm = 0.1 * tick, 1000 + tick
        recorder.occasion()
    looks = (recorder.to_json() or {})["looks"]
    assert len(looks) <= MOST_LOOKS + 1
    assert looks[0]["at"] == 0.0 and looks[-1]["at"] == pytest.approx(1999.9, abs=0.2)
    gaps = [b["at"] - a["at"] for a, b in pairwise(looks[:-1])]
    assert max(gaps) < 2.1 * min(gaps)
    assert Recorder(None).to_json() is None and Recorder(None).warning() is None


def test_energy_per_image_is_counted_and_fitted():
    library, now = FakeLibrary(), 0.0

    def work(seconds, watts):
        nonlocal now
        now += seconds
        library.millijoules += 1000.0 * watts * seconds

    space = load_space("digits")
    networks = [space.smallest, space.largest, *(space.sample(Random(i)) for i in range(8))]
    found = {
        a.id: features((p, Timing((0.02 + p.macs / 1e7,))) for p in operations(a)) for a in networks
    }
    # 100 W idle, 400 W at work: 32 images take as long as their pieces.
    calls = {
        id_: (lambda milliseconds=f["device"]: work(milliseconds / 1000.0, 400.0))
        for id_, f in found.items()
    }
    answer = measure_energy(
        *(Nvml(library), calls, 32, lambda: None),
        seconds=5.0,
        clock=lambda: now,
        pause=lambda seconds: work(seconds, 100.0),
    )
    assert answer and now == pytest.approx(1.0 + 5.0, rel=0.1)  # idle, then half a second each
    joules, idle = answer
    assert idle == pytest.approx(100.0, rel=0.01)
    energy = fit_energy("test", list(joules), list(found.values()), list(joules.values()), idle)
    assert energy.mean_percent < 2.0
    assert energy.per_millisecond == pytest.approx(0.4 / 32, rel=0.05)
    assert Energy.from_json(json.loads(json.dumps(energy.to_json())), "here") == energy
