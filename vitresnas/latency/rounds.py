"""Rounds over many calls, within a time budget, every measurement logged before the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from vitresnas.latency.drift import drifted
from vitresnas.latency.partial import COMPARED, PartialLog, Visit
from vitresnas.latency.runtime import Call
from vitresnas.latency.statistics import Clock, p10_width
from vitresnas.progress import Step

Measure = Callable[[Call], tuple[float, float]]
NOTHING: Mapping[str, Call] = {}

REPEATS = 1000  # rounds from here on repeat what drift had spoilt
_LEAST_CLEAN = 3  # samples outside drifted stretches, to do without those inside
_ENOUGH_CLEAN = 12  # samples outside drifted stretches, to measure nothing again


@dataclass(frozen=True)
class Plan:
    """How many rounds a phase takes: between two bounds, as many as fit into `seconds`.

    An item leaves the rounds once the 95 % intervals of its price, in host and in device time, are
    narrower than `precision`.
    """

    minimum_rounds: int
    maximum_rounds: int
    seconds: float
    precision: float = 0.0

    def expected_seconds(self, one_round: float) -> float:
        return min(
            max(self.seconds, self.minimum_rounds * one_round), self.maximum_rounds * one_round
        )

    def enough(self, rounds: int, spent: float) -> bool:
        return rounds >= self.maximum_rounds or (
            rounds >= self.minimum_rounds and spent >= self.seconds
        )

    def narrow(self, visits: Sequence[Visit]) -> bool:
        if len(visits) < self.minimum_rounds:
            return False
        times = [visit.host for visit in visits], [visit.device for visit in visits]
        return max(map(p10_width, times)) < self.precision


def run_rounds(
    phase: str,
    calls: Mapping[str, Call],
    measure: Measure,
    log: PartialLog,
    plan: Plan,
    step: Step,
    *,
    beside: Mapping[str, Call] = NOTHING,
    between: Callable[[], object] = lambda: None,
    clock: Clock = time.perf_counter,
) -> int:
    """Visit every call once per round, skipping what the log holds already; returns the rounds.

    `beside`: further calls that take turns in the same rounds, logged as `COMPARED`. They take no
    time from the others: they have the plan's bounds to themselves, and leave once those are met.

    `between` is called before every visit (the anchor's occasion); what it takes is not counted.
    When to stop, and which items are narrow enough to be left out, depends on logged times alone:
    a run that was killed goes on as it would have.
    """
    rounds = 0
    visit = _Visitor({**calls, **beside}, measure, log, between, clock)
    wanted, guests = list(calls), list(beside)
    visits: dict[str, list[Visit]] = {name: [] for name in (*calls, *beside)}
    while wanted and not plan.enough(rounds, log.seconds(phase, rounds)):
        order = [(phase, item) for item in wanted] + [(COMPARED, item) for item in guests]
        Random(f"{phase} {rounds}").shuffle(order)
        for position, (kind, item) in enumerate(order):
            visit(kind, rounds, item)
            visits[item].append(log.visits[kind, rounds, item])
            done = rounds + (position + 1) / len(order)
            step(_fraction(plan, done, log.seconds(phase, rounds + 1)), f"round {rounds + 1}")
        rounds += 1
        wanted = [item for item in wanted if not plan.narrow(visits[item])]
        if plan.enough(rounds, log.seconds(COMPARED, rounds)):
            guests = []
    return rounds


def repeat(
    phase: str,
    calls: Mapping[str, Call],
    measure: Measure,
    log: PartialLog,
    seconds: float,
    step: Step,
    *,
    between: Callable[[], object] = lambda: None,
    clock: Clock = time.perf_counter,
) -> int:
    """Take again, for at most `seconds`, what drift has spoilt; returns how many it took.

    In rounds that every item takes part in as often as it lacks a measurement (`lacking`).
    """
    spoilt = {item: count for item, count in lacking(phase, log).items() if item in calls}
    first = {item: REPEATS + _repeats(visits) for item, visits in log.by_item(phase).items()}
    visit = _Visitor(calls, measure, log, between, clock)
    total, taken, begin = sum(spoilt.values()), 0, clock()
    for turn in range(max(spoilt.values(), default=0)):
        order = [item for item, count in spoilt.items() if count > turn]
        Random(f"{phase} again {turn}").shuffle(order)
        for item in order:
            if clock() - begin >= seconds:
                return taken
            visit(phase, first[item] + turn, item)
            taken += 1
            step(max(taken / total, min((clock() - begin) / seconds, 1.0)), "taken again")
    return taken


def kept(phase: str, log: PartialLog) -> dict[str, list[Visit]]:
    """The visits that count: those outside drifted stretches, or all where too few are."""
    stretches = drifted(log.readings)
    found = {}
    for item, visits in log.by_item(phase).items():
        clean = [visit for visit in visits if not log.inside(visit, stretches)]
        found[item] = clean if len(clean) >= min(_LEAST_CLEAN, len(visits)) else visits
    return found


def lacking(phase: str, log: PartialLog) -> dict[str, int]:
    """How many measurements each item lacks because of drift; items that lack none are left out.

    A spoilt one is missed only where few clean ones are there: whoever was measured in every round
    of a long run can do without the rounds that were disturbed.
    """
    stretches, found = drifted(log.readings), {}
    for item, visits in log.by_item(phase).items():
        clean = sum(not log.inside(visit, stretches) for visit in visits)
        wanted = min(_ENOUGH_CLEAN, len(visits) - _repeats(visits))
        if wanted > clean:
            found[item] = wanted - clean
    return found


def _repeats(visits: Sequence[Visit]) -> int:
    return sum(visit.round >= REPEATS for visit in visits)


def spoilt_visits(phase: str, log: PartialLog) -> int:
    """How many measurements a phase lacks because of drift."""
    return sum(lacking(phase, log).values())


class _Visitor:
    """Measures one item and logs it, unless the log holds that visit already."""

    def __init__(
        self,
        calls: Mapping[str, Call],
        measure: Measure,
        log: PartialLog,
        between: Callable[[], object],
        clock: Clock,
    ) -> None:
        self._calls, self._measure, self._log = calls, measure, log
        self._between, self._clock = between, clock
        self._last = clock()

    def __call__(self, phase: str, round_: int, item: str) -> None:
        if self._log.has(phase, round_, item):
            return
        begin = self._clock()
        self._between()
        self._last += self._clock() - begin
        host, device = self._measure(self._calls[item])
        now = self._clock()
        # From visit to visit, so that logging counts as time spent too.
        seconds = round(now - self._last, 6)
        self._log.record(Visit(phase, round_, item, host, device, seconds))
        self._last = now


def _fraction(plan: Plan, done: float, spent: float) -> float:
    """How far a phase is, whichever bound will end it; `done` counts rounds."""
    budget = max(spent / plan.seconds, done / plan.maximum_rounds)
    return min(done / plan.minimum_rounds, budget, 1.0)
