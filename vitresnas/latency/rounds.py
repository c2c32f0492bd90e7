"""Rounds over many calls, within a time budget, every measurement logged before the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from vitresnas.latency.partial import PartialLog, Visit
from vitresnas.latency.progress import Step
from vitresnas.latency.runtime import Call

Measure = Callable[[Call], tuple[float, float]]


@dataclass(frozen=True)
class Plan:
    """How many rounds a phase takes: between two bounds, as many as fit into `seconds`."""

    minimum_rounds: int
    maximum_rounds: int
    seconds: float

    def expected_seconds(self, one_round: float) -> float:
        return min(
            max(self.seconds, self.minimum_rounds * one_round), self.maximum_rounds * one_round
        )

    def enough(self, rounds: int, spent: float) -> bool:
        return rounds >= self.maximum_rounds or (
            rounds >= self.minimum_rounds and spent >= self.seconds
        )


def run_rounds(
    phase: str,
    calls: Mapping[str, Call],
    measure: Measure,
    log: PartialLog,
    plan: Plan,
    step: Step,
) -> int:
    """Visit every call once per round, skipping what the log holds already; returns the rounds.

    When to stop depends on logged times alone, so a run that was killed stops where it would have.
    """
    rounds = 0
    while not plan.enough(rounds, log.seconds(phase, rounds)):
        order = list(calls)
        Random(f"{phase} {rounds}").shuffle(order)
        last = time.perf_counter()
        for position, item in enumerate(order):
            if not log.has(phase, rounds, item):
                host, device = measure(calls[item])
                now = time.perf_counter()
                # From visit to visit, so that logging counts as time spent too.
                log.record(Visit(phase, rounds, item, host, device, round(now - last, 6)))
                last = now
            done = rounds + (position + 1) / len(order)
            step(_fraction(plan, done, log.seconds(phase, rounds + 1)), f"round {rounds + 1}")
        rounds += 1
    return rounds


def _fraction(plan: Plan, done: float, spent: float) -> float:
    """How far a phase is, whichever bound will end it; `done` counts rounds."""
    budget = max(spent / plan.seconds, done / plan.maximum_rounds)
    return min(done / plan.minimum_rounds, budget, 1.0)
