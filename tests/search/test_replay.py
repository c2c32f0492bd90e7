"""A search that is killed goes on from its log to the identical result, scoring nothing twice."""

from __future__ import annotations

import os

import pytest

import kill_search
from vitresnas.errors import FileFormatError, MismatchError
from vitresnas.files import append_line, read_lines
from vitresnas.search import EvaluationLog, Score, search

CONTEXT, formula = kill_search.CONTEXT, kill_search.formula
SMALL = kill_search.STRATEGIES[0]


def run(space, path, score=formula, strategy=SMALL, seed=0):
    log = EvaluationLog(path, CONTEXT)
    return search(space, score, strategy=strategy, seed=seed, log=log)


@pytest.mark.parametrize("strategy", kill_search.STRATEGIES, ids=lambda one: one.name)
@pytest.mark.parametrize("when", kill_search.WHEN)
def test_kill_9_at_a_line_of_the_log_and_the_same_search_give_the_same_result(
    tmp_path, strategy, when
):
    """A sample; `python bench/kill_search.py formula` kills at every line."""
    assert kill_search.kill_everywhere(strategy, when, tmp_path, step=7) >= 4


# A race that was cut short is replayed in test_racing.py.
@pytest.mark.parametrize("strategy", kill_search.STRATEGIES[:3], ids=lambda one: one.name)
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
