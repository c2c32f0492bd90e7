"""How far work is, told in lines: now and then, with the time that is left."""

import pytest

from vitresnas.progress import Progress, duration


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_time_left_counts_only_the_work_done_now(capsys, clock):
    with Progress("scoring", 100, unit="candidates", clock=clock) as progress:
        progress(40)  # replayed from a log, at once
        clock.now = 10.0
        progress(50)
    assert capsys.readouterr().err == "scoring: 50 of at most 100 candidates, about 50 s left\n"
    with Progress("training", 100.0, 60.0, clock=clock) as progress:
        clock.now = 20.0
        progress.add(20.0)
        progress.tell("epoch 2/3")
    assert capsys.readouterr().err == "training: epoch 2/3, about 10 s left\n"


def test_lines_come_every_few_seconds_and_always_where_that_is_asked(capsys, clock):
    with Progress("operations", clock=clock) as progress:
        for second in range(1, 13):
            clock.now = float(second)
            progress(second / 12, f"round {second}")
        progress.tell("done", always=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "operations: 42%, round 5, about 7 s left",
        "operations: 83%, round 10, about 2 s left",
        "operations: done",
    ]


def test_less_than_a_second_is_not_worth_a_word(capsys, clock):
    with Progress("operations", clock=clock) as progress:
        clock.now = 10.0
        progress(0.99)
    assert capsys.readouterr().err == "operations: 99%\n"


def test_one_of_several_processes_speaks(capsys, clock):
    with Progress("training", silent=True, clock=clock) as progress:
        clock.now = 100.0
        progress(0.5)
        progress.tell("epoch 1/2", always=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.346, "0.35 s"),
        (12.3, "12 s"),
        (59.6, "1 min"),
        (129, "2 min 9 s"),
        (3600, "1 h"),
        (7300, "2 h 1 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds, words):
    assert duration(seconds) == words
