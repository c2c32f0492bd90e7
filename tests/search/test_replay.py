"""A search that is killed goes on from its log to the identical result, scoring nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from vitresnas.errors import FileFormatError
from vitresnas.search import EvaluationLog

SCRIPT = """
import json, sys, time
from pathlib import Path
from vitresnas.search import Constraint, EvaluationLog, Evolution, Score, search
from vitresnas.space import load_space, macs

folder, delay = Path(sys.argv[1]), float(sys.argv[2])
def score(architecture):
    with (folder / "scored.txt").open("a") as file:
        file.write(architecture.id + "\\n")
    time.sleep(delay)
    whim = int(architecture.id[:6], 16) / 0xFFFFFF
    return Score(1e7 / (macs(architecture) + 1e6) + 0.2 * whim, 0.5, 10)

strategy = Evolution(initial=30, iterations=3, parents=10, mutants=8, crossovers=8)
log = EvaluationLog(folder / "log.jsonl", {"supernet": "formula"})
result = search(load_space("digits"), score, [Constraint("macs", 2e7)], strategy=strategy, log=log)
(folder / "result.json").write_text(json.dumps(result.to_json()))
"""


def start(folder, delay):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(delay)])


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_kill_9_and_the_same_command_give_the_same_history(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole, 0).wait(60) == 0
    for stop_at in (3, 25, 50):
        process = start(broken, 0.02)
        deadline = time.monotonic() + 60
        while len(lines(broken / "scored.txt")) < stop_at:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (broken / "result.json").exists()
    assert start(broken, 0).wait(60) == 0
    assert json.loads((broken / "result.json").read_text()) == json.loads(
        (whole / "result.json").read_text()
    )
    # Each of the three kills may cost the one network that was being scored.
    scored = lines(broken / "scored.txt")
    assert len(scored) - len(set(scored)) <= 3
    assert set(scored) == set(lines(whole / "scored.txt"))


def test_a_line_that_was_cut_short_is_scored_again(tmp_path):
    whole = tmp_path / "whole"
    assert start(whole, 0).wait(60) == 0
    expected = json.loads((whole / "result.json").read_text())
    log = whole / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    before = len(lines(whole / "scored.txt"))
    assert start(whole, 0).wait(60) == 0
    assert len(lines(whole / "scored.txt")) == before + 1
    assert json.loads((whole / "result.json").read_text()) == expected


@pytest.mark.parametrize("line", ['{"id": "x"}', "[1]", '{"context": 1}'])
def test_a_log_that_holds_something_else_is_refused(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(line + "\n")
    with pytest.raises(FileFormatError, match="line 1"):
        EvaluationLog(tmp_path / "log.jsonl")
