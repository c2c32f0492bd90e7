"""What is asked of this machine and what is known about it."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

import pytest
import torch

from vitresnas.doors import spin_briefly
from vitresnas.errors import InputError
from vitresnas.latency import busy
from vitresnas.latency.busy import Watch, busy_warning
from vitresnas.latency.priority import NORMAL, REAL_TIME, measuring_priority
from vitresnas.latency.request import Request, resolve_condition, resolve_device
from vitresnas.space import load_space


def test_a_condition_says_what_would_change_the_times():
    condition = resolve_condition(load_space("digits"), Request(device="cpu", threads=1))
    assert (condition.batch_size, condition.threads, condition.dtype) == (32, 1, "fp32")
    assert condition.image_size == 16 and condition.space_id == load_space("digits").id
    assert dict(condition.versions)["torch"] == torch.__version__
    assert resolve_condition(load_space("tiny"), Request(device="cpu")).batch_size == 8


@pytest.mark.parametrize(("value", "backend"), [("", "auto"), ("reference", "reference")])
def test_an_empty_backend_variable_is_the_same_condition_as_none(monkeypatch, value, backend):
    monkeypatch.setenv("VITRESNAS_BACKEND", value)
    condition = resolve_condition(load_space("digits"), Request(device="cpu"))
    assert condition.backend == backend


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"dtype": "int4"}, "int4"),
        ({"runtime": "warp"}, "warp"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": float("inf")}, "seconds is inf"),
    ],
)
def test_impossible_requests_are_refused(fields, complaint):
    with pytest.raises(InputError, match=complaint):
        Request(**fields)


@pytest.mark.parametrize("name", ["quantum", "mps", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(InputError, match=name):
        resolve_device(name)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux")
def test_priority_is_given_back_even_after_an_error():
    before = os.sched_getscheduler(0)
    with pytest.raises(RuntimeError), measuring_priority(1) as priority:
        raised = os.sched_getscheduler(0) != before
        assert priority == (REAL_TIME if raised else NORMAL)
        raise RuntimeError
    assert os.sched_getscheduler(0) == before


def test_more_threads_than_cores_are_never_raised():
    # Real-time threads that wait for each other on one core would only burn its time.
    with measuring_priority(10_000) as priority:
        assert priority == NORMAL


def test_waiting_threads_spin_briefly_unless_the_user_decided(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    spin_briefly()
    assert int(os.environ["GOMP_SPINCOUNT"]) < 300_000
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    spin_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux")
def test_work_of_other_processes_is_noticed():
    watch = Watch()
    spin = "import time; end = time.monotonic() + 0.8\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as hog:
        hog.wait(timeout=60)
    assert (watch.other_cpus() or 0.0) > 0.05


def test_only_a_busy_machine_is_warned_about():
    assert busy_warning(None) is None
    assert busy_warning(0.1) is None
    assert "1.5 of" in (busy_warning(1.5) or "")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted on Linux")
def test_own_busy_threads_do_not_pass_for_other_processes():
    alone = median(busy._own_running() for _ in range(21))
    # hashlib lets go of the interpreter lock, so that the thread runs beside this one.
    worker = threading.Thread(
        target=hashlib.pbkdf2_hmac, args=("sha256", b"anchor", b"salt", 1_500_000)
    )
    worker.start()
    beside = []
    while worker.is_alive():
        beside.append(busy._own_running())
    worker.join()
    assert median(beside) == alone + 1


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="processes are counted on Linux")
def test_a_busy_process_of_others_is_counted():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            time.sleep(0.5)
            assert max(busy.waiting_processes() or 0 for _ in range(20)) >= 1
        finally:
            other.kill()
