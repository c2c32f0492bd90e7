"""`bench/latency_table.py` from end to end, with real modules, a real kill and a real limit."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitresnas.latency import load_tables
from vitresnas.latency.__main__ import main

ROOT = Path(__file__).parents[2]
BENCH = str(ROOT / "bench" / "latency_table.py")


@pytest.fixture
def space_file(small_space, tmp_path):
    small_space.save(tmp_path / "space.json")
    return str(tmp_path / "space.json")


def _command(space_file, out, *more):
    options = ("--batch-size", "2", "--seconds", "1.5", "--device", "cpu")
    return [sys.executable, BENCH, "--space", space_file, "--out", str(out), *options, *more]


def _arguments(space_file, out, *more):
    return _command(space_file, out, *more)[2:]


def test_a_table_is_measured_written_and_summed_up(space_file, small_space, tmp_path, capsys):
    out = tmp_path / "table.json"
    assert main(_arguments(space_file, out, "--json")) == 0
    streams = capsys.readouterr()
    document = json.loads(streams.out)
    (table,) = load_tables(out)
    assert document["entries"] == len(table.entries) == len(small_space.operations())
    assert document["validation"]["networks"] == len(table.validation.pairs) == 24
    assert f"{len(table.entries)} distinct operations" in streams.err and "about" in streams.err
    assert table.milliseconds(small_space.largest) > table.milliseconds(small_space.smallest) > 0
    used = {pair.architecture for pair in table.validation.pairs}
    assert small_space.largest not in used  # the ends calibrate
    assert not list(tmp_path.glob("*.partial*"))
    # Another condition joins the file; the same one again replaces its table.
    assert main(_arguments(space_file, out, "--dtype", "bf16")) == 0
    assert [table.condition.dtype for table in load_tables(out)] == ["fp32", "bf16"]
    assert load_tables(out)[0] == table
    assert main(_arguments(space_file, out)) == 0
    assert [table.condition.dtype for table in load_tables(out)] == ["bf16", "fp32"]


def test_a_compiled_table_compiles_every_operation_once(
    space_file, small_space, tmp_path, capsys, compilations
):
    out = tmp_path / "table.json"
    assert main(_arguments(space_file, out, "--runtime", "compile", "--threads", "1")) == 0
    # The whole networks that calibrate and validate are made of the same compiled pieces.
    assert len(compilations) == len(small_space.operations())
    (table,) = load_tables(out)
    assert table.condition.runtime == "compile"
    assert "compiling" in capsys.readouterr().err


def _wait_for_lines(path, count, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = path.read_text().splitlines()[:-1] if path.exists() else []
        if len(lines) >= count:
            return
        assert process.poll() is None, "the measurement ended before it could be killed"
        time.sleep(0.002)
    raise AssertionError(f"{path} did not reach {count} lines")


@pytest.mark.slow
def test_killed_and_repeated_it_keeps_every_measurement(space_file, small_space, tmp_path):
    out, partial = tmp_path / "table.json", tmp_path / "table.json.partial.jsonl"
    command = _command(space_file, out)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        _wait_for_lines(partial, 90, process)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    before = [json.loads(line) for line in partial.read_text().splitlines() if line[-1:] == "}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stderr
    (table,) = load_tables(out)
    timings = {str(operation): timing for operation, timing in table.entries}
    assert set(timings) == {str(operation) for operation in small_space.operations()}
    kept = [line for line in before if line["type"] == "operation"]
    assert len(kept) >= 50 and table.drift
    if not table.drift.stretches:  # a machine that changed its speed measures some again
        for line in kept:
            sample = timings[line["item"]].host_samples[line["round"]]
            assert sample == line["host_milliseconds"]
    assert table.circumstances["resumed"] and not partial.exists()


def test_a_full_disk_ends_with_one_sentence_and_leaves_the_earlier_table(
    space_file, table, tmp_path
):
    from vitresnas.latency import save_tables

    out = tmp_path / "table.json"
    save_tables(out, [table])
    before = out.read_bytes()
    done = subprocess.run(
        _command(space_file, out),
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2
    assert "no space left" in done.stderr and "Traceback" not in done.stderr
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--space", "hyperspace"), "hyperspace"),
        (("--runtime", "cuda-graph", "--device", "cpu"), "NVIDIA GPU"),
        (("--batch-size", "0"), "batch_size is 0"),
        (("--batch-size", "many"), "many"),
        (("--dtype", "fp64"), "fp64"),
        (("--device", "abacus"), "abacus"),
    ],
)
def test_bad_input_is_told_in_one_sentence(options, complaint, tmp_path, capsys):
    assert main([*options, "--out", str(tmp_path / "table.json")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and complaint in error
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_table_is_refused_before_anything_is_measured(space_file, capsys):
    before = Path(space_file).read_bytes()
    assert main(_arguments(space_file, space_file)) == 2
    assert "latency_table" in capsys.readouterr().err
    assert Path(space_file).read_bytes() == before


def test_two_measurements_into_one_folder_are_refused(space_file, tmp_path, capsys):
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as another process that measures here would
    try:
        assert main(_arguments(space_file, tmp_path / "table.json")) == 2
    finally:
        os.close(handle)
    assert "another process is measuring into" in capsys.readouterr().err
