"""A search that is killed goes on from its log to the identical result, scoring nothing twice."""

from __future__ import annotations

import json
import os
import signal

import pytest

from vitresnas.errors import FileFormatError, MismatchError
from vitresnas.files import Lines, append_line, read_lines
from vitresnas.search import EvaluationLog, Evolution, Score, search
from vitresnas.search.nsga2 import Nsga2
from vitresnas.search.random_search import RandomSearch
from vitresnas.space import macs

CONTEXT = {"supernet": "formula", "data": {"name": "none", "id": "0"}}
SMALL = Evolution(initial=10, iterations=2, parents=5, mutants=3, crossovers=3)


def formula(architecture):
    whim = int(architecture.id[:6], 16) / 0xFFFFFF
    return Score(1e7 / (macs(architecture) + 1e6) + 0.2 * whim, 0.5, 10)


def run(space, path, score=formula, strategy=SMALL, seed=0):
    log = EvaluationLog(path, CONTEXT)
    return search(space, score, strategy=strategy, seed=seed, log=log)


def in_child(work):
    """Run `work` in a fork of this process; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point, when, run):
    """Run until the `point`-th line of the log, and be killed before, amid or after it."""
    whole, seen = Lines.append, []

    def append(self, record):
        seen.append(record)
        if len(seen) == point:
            if when == "amid":
                text = json.dumps(record, sort_keys=True).encode()
                os.write(self._file.fileno(), text[: len(text) // 2])
            elif when == "after":
                whole(self, record)
            die()
        whole(self, record)

    Lines.append = append  # type: ignore[method-assign]
    run()


@pytest.mark.parametrize("when", ["before", "amid", "after"])
def test_kill_9_at_every_line_of_the_log_and_the_same_search_give_the_same_result(
    digits, tmp_path, when
):
    reference = run(digits, tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines()
    assert len(lines) == 1 + SMALL.budget + 1  # a header, and the largest network beside them
    for point in range(1, len(lines) + 1):
        path = tmp_path / f"{point}.jsonl"
        killed = in_child(lambda at=point, log=path: die_at(at, when, lambda: run(digits, log)))
        assert killed == -signal.SIGKILL
        left = path.read_bytes()
        assert left.count(b"\n") == point - (when != "after")
        assert (when == "amid") == (not left.endswith(b"\n") and left != b"")
        assert run(digits, path) == reference
        # Nothing is scored twice, nothing is lost.
        assert path.read_bytes().splitlines() == lines


@pytest.mark.parametrize(
    "strategy",
    [
        SMALL,
        RandomSearch(draws=30),
        Nsga2(("score", "macs", "parameters"), population=10, generations=3),
    ],
    ids=lambda strategy: strategy.name,
)
def test_every_strategy_replays_from_half_a_log_and_scores_only_the_rest(
    digits, tmp_path, strategy
):
    path = tmp_path / "log.jsonl"
    reference = run(digits, path, strategy=strategy)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))
    scored = []

    def counted(architecture):
        scored.append(architecture)
        return formula(architecture)

    assert run(digits, path, counted, strategy) == reference
    assert len(scored) == len(lines) - len(lines) // 2
    assert path.read_bytes().splitlines(keepends=True) == lines


def test_two_searches_at_once_share_one_log_and_end_as_alone(digits, tmp_path):
    alone = [run(digits, tmp_path / f"{seed}.jsonl", seed=seed) for seed in (0, 1)]
    shared = tmp_path / "shared.jsonl"
    children = []
    for seed in (0, 1):
        children.append(os.fork())
        if children[-1] == 0:
            code = 1
            try:
                code = 0 if run(digits, shared, seed=seed) == alone[seed] else 2
            finally:
                os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children] == [0, 0]
    ids = [line["id"] for line in read_lines(shared)[1:]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {c.id for found in alone for c in found.history} | {digits.largest.id}

    def never(architecture):
        raise AssertionError("all of this is in the log")

    assert [run(digits, shared, never, seed=seed) for seed in (0, 1)] == alone


def test_many_writers_at_once_leave_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    children = []
    for writer in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                for number in range(25):
                    append_line(path, {"writer": writer, "number": number, "pad": "x" * 5000})
            finally:
                os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    found = [(line["writer"], line["number"]) for line in read_lines(path)]
    assert len(found) == len(set(found)) == 100
    assert all([n for w, n in found if w == writer] == list(range(25)) for writer in range(4))


@pytest.mark.parametrize(
    ("context", "difference"),
    [
        ({**CONTEXT, "supernet": "another"}, "supernet 'formula', this search's is 'another'"),
        (
            {**CONTEXT, "data": {"name": "none", "id": "1"}},
            "data.id '0', this search's is '1'",
        ),
        ({**CONTEXT, "space": "digits"}, "space None, this search's is 'digits'"),
    ],
)
def test_a_log_of_something_else_is_refused_with_the_difference(
    digits, tmp_path, context, difference
):
    path = tmp_path / "log.jsonl"
    EvaluationLog(path, CONTEXT).add(digits.largest, Score(0.5, 0.9, 10))
    before = path.read_bytes()
    with pytest.raises(MismatchError, match=difference):
        EvaluationLog(path, context)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", ['{"id": "x"}', "[1]", '{"context": 1}', "x"])
def test_a_file_that_is_no_log_is_refused(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(line + "\n")
    with pytest.raises(FileFormatError, match="line 1"):
        EvaluationLog(tmp_path / "log.jsonl")


def test_a_log_put_together_from_two_is_refused(digits, tmp_path):
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    EvaluationLog(one, {"supernet": "a"}).add(digits.largest, Score(0.5))
    EvaluationLog(other, {"supernet": "b"}).add(digits.smallest, Score(0.5))
    one.write_bytes(one.read_bytes() + other.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(FileFormatError, match=r"line 3 .*two logs"):
        EvaluationLog(one, {"supernet": "a"})
