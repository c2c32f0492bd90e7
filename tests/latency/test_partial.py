"""The log: nothing measured is lost, nothing foreign is used, nothing counts twice."""

import pytest

from vitresnas.errors import FileFormatError
from vitresnas.latency.partial import COMPARED, PartialLog, Visit
from vitresnas.latency.rounds import Plan, run_rounds
from vitresnas.progress import Progress

SUBJECT = {"condition": {"batch_size": 4}, "seconds": 1.0}


def _measure(call):
    return call(), 1.0


def _run(log, calls, plan):
    with Progress("test", silent=True) as step:
        return run_rounds("operation", calls, _measure, log, plan, step)


def test_an_interrupted_run_continues_and_measures_only_the_one_in_flight_again(tmp_path):
    made = []

    def call(name, fail_at=None):
        def run():
            made.append(name)
            if fail_at is not None and len(made) > fail_at:
                raise KeyboardInterrupt
            return float(len(made))

        return run

    names, plan = "abcdefg", Plan(3, 3, 100.0)
    log, _ = PartialLog.open(tmp_path / "log", SUBJECT)
    with pytest.raises(KeyboardInterrupt):
        _run(log, {name: call(name, fail_at=10) for name in names}, plan)
    log, message = PartialLog.open(tmp_path / "log", SUBJECT)
    assert message and "10 measurements so far" in message
    kept = dict(log.visits)
    assert _run(log, {name: call(name) for name in names}, plan) == 3
    assert len(log.visits) == 21 and len(made) == 22
    assert kept.items() <= log.visits.items()
    again, _ = PartialLog.open(tmp_path / "log", SUBJECT)
    assert again.visits == log.visits
    assert [len(visits) for visits in again.by_item("operation").values()] == [3] * 7


def test_rounds_stop_when_the_time_is_spent_but_never_before_the_minimum(tmp_path):
    def log_with(seconds):
        log, _ = PartialLog.open(tmp_path / f"log{seconds}", SUBJECT)
        for round_ in range(2):
            for name in "ab":
                log.record(Visit("operation", round_, name, 1.0, 1.0, seconds))
        return log

    calls = {"a": lambda: 1.0, "b": lambda: 1.0}
    assert _run(log_with(10.0), calls, Plan(2, 9, 30.0)) == 2
    assert _run(log_with(20.0), calls, Plan(3, 9, 30.0)) == 3
    assert _run(log_with(0.001), calls, Plan(2, 9, 30.0)) == 9


def test_every_round_has_an_order_of_its_own(tmp_path):
    order = []

    def call(name):
        def run():
            order.append(name)
            return 1.0

        return run

    calls = {name: call(name) for name in "abcdefgh"}
    log, _ = PartialLog.open(tmp_path / "log", SUBJECT)
    _run(log, calls, Plan(2, 2, 1.0))
    assert sorted(order[:8]) == sorted(order[8:]) == list("abcdefgh")
    assert order[:8] != order[8:]


def test_calls_beside_take_turns_until_their_own_time_is_spent(tmp_path):
    log, _ = PartialLog.open(tmp_path / "log", SUBJECT)
    for round_ in range(4):
        log.record(Visit("operation", round_, "a", 1.0, 1.0, 2.0))
        if round_ < 2:
            log.record(Visit(COMPARED, round_, "guest", 9.0, 9.0, 9.0))
    calls, beside = {"a": lambda: 1.0}, {"guest": lambda: 9.0}
    with Progress("test", silent=True) as step:
        plan = Plan(2, 4, 8.0)
        rounds = run_rounds("operation", calls, _measure, log, plan, step, beside=beside)
    assert rounds == 4
    assert len(log.by_item("operation")["a"]) == 4 and len(log.by_item(COMPARED)["guest"]) == 2


def test_a_log_about_something_else_is_not_used_and_that_is_said(tmp_path):
    log, _ = PartialLog.open(tmp_path / "log", SUBJECT)
    log.record(Visit("operation", 0, "a", 1.0, 1.0, 0.1))
    other, message = PartialLog.open(tmp_path / "log", {**SUBJECT, "seconds": 2.0})
    assert not other.visits
    assert message and "ignored" in message and str(tmp_path / "log") in message
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_torn_last_line_is_the_measurement_in_flight(tmp_path):
    log, _ = PartialLog.open(tmp_path / "log", SUBJECT)
    log.record(Visit("operation", 0, "a", 1.0, 1.0, 0.1))
    with (tmp_path / "log").open("a") as file:
        file.write('{"type": "operation", "rou')
    again, _ = PartialLog.open(tmp_path / "log", SUBJECT)
    assert list(again.visits) == [("operation", 0, "a")]


def test_a_measurement_that_stands_twice_is_refused(tmp_path):
    log, _ = PartialLog.open(tmp_path / "log", SUBJECT)
    visit = Visit("operation", 0, "a", 1.0, 1.0, 0.1)
    log.record(visit)
    with pytest.raises(FileFormatError, match="again"):
        log.record(visit)
    with pytest.raises(FileFormatError, match="start afresh"):
        PartialLog.open(tmp_path / "log", SUBJECT)
