"""Several processes score for one search: the same history, also when one of them dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vitresnas.files import read_lines
from vitresnas.search import EvaluationLog, Score, search
from vitresnas.search.evolution import Evolution
from vitresnas.space import macs

pytestmark = pytest.mark.distributed
STRATEGY = Evolution(initial=20, iterations=3, parents=8, mutants=6, crossovers=6)
CONTEXT = {"scorer": "a formula"}
ME = Path(__file__)


def formula(architecture):
    whim = int(architecture.id[:6], 16) / 0xFFFFFF
    return Score(1e7 / (macs(architecture) + 1e6) + 0.2 * whim, 0.5, 10)


def one_of_several(out, dies_at, wrong):
    """What each process runs; the last one dies at its `dies_at`-th network."""
    import time

    from vitresnas.doors import Rank
    from vitresnas.search import workers
    from vitresnas.search.engine import Session
    from vitresnas.space import load_space

    seen, rank = [], Rank.here()

    def score(architecture):
        seen.append(architecture)
        if len(seen) == dies_at and rank.rank == rank.size - 1:
            os.kill(os.getpid(), 9)
        time.sleep(0.005)
        return formula(architecture)

    if not rank.leads:
        return workers.serve(lambda task: (score, {"scorer": "another"} if wrong else CONTEXT))
    with workers.joined() as crew:
        crew.prepare({}, CONTEXT)
        log = EvaluationLog(out / "log.jsonl", CONTEXT)
        joined, threads = crew.join(score, 1), 1 + len(crew)
        session = Session(
            load_space("digits"), joined, (), strategy=STRATEGY, log=log, workers=threads
        )
        found = session.run()
    found.save(out / "result.json")
    (out / "own.json").write_text(json.dumps(len(seen)))
    return 0


def run_several(out, processes, dies_at=0, wrong=False):
    """Exit codes and what rank 0 said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    command = [sys.executable, str(ME), str(out), str(dies_at), str(int(wrong))]
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **world, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    return [process.returncode for process in started], said[0]


@pytest.fixture
def alone(digits):
    return search(digits, formula, strategy=STRATEGY)


def test_what_a_worker_was_at_when_it_died_is_scored_by_another(alone, tmp_path):
    codes, said = run_several(tmp_path, 2, dies_at=5)
    assert codes == [0, -9], said
    assert said.count("worker 1 is gone: its network") == 1
    alone.save(tmp_path / "alone.json")
    assert (tmp_path / "result.json").read_bytes() == (tmp_path / "alone.json").read_bytes()
    ids = [line["id"] for line in read_lines(tmp_path / "log.jsonl")[1:]]
    assert len(ids) == len(set(ids)) == len(alone.history) + 1
    own = json.loads((tmp_path / "own.json").read_text())
    assert own == len(ids) - 4, "the worker had its share"


def test_a_worker_that_would_score_something_else_is_refused(tmp_path):
    codes, said = run_several(tmp_path, 2, wrong=True)
    assert codes[0] != 0 and "MismatchError: worker 1 would score" in said
    assert not (tmp_path / "log.jsonl").exists()


if __name__ == "__main__":
    sys.exit(one_of_several(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"))
