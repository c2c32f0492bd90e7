"""Kill a search with SIGKILL and run it again: is its result identical?

    python bench/kill_search.py formula                # at every line, every strategy
    python bench/kill_search.py digits --kills 10      # the real search, at random moments

`formula` kills forks of this process before, amid and after every append to the evaluation log, or,
of the guided search, to its log of parts.
`digits` starts `python -m vitresnas.search`, kills it `--kills` times in one folder, then lets it
end; what follows goes to the search, as in `-- --supernet DIR --latency-table FILE`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from vitresnas.files import Lines
from vitresnas.search import (
    EvaluationLog,
    Evolution,
    Nsga2,
    RandomSearch,
    Score,
    SearchResult,
    search,
)
from vitresnas.search.engine import Session
from vitresnas.search.guided import Guided
from vitresnas.search.parts import Part, Parts
from vitresnas.search.strategy import Strategy
from vitresnas.space import Architecture, load_space, macs

WHEN = ("before", "amid", "after")
CONTEXT = {"supernet": "formula", "data": {"name": "none", "id": "0"}}
STRATEGIES: tuple[Strategy, ...] = (
    Evolution(initial=10, iterations=2, parents=5, mutants=3, crossovers=3),
    RandomSearch(draws=30),
    Nsga2(("score", "macs", "parameters"), population=10, generations=3),
    Guided(initial=6, iterations=3, batch=3, pool=20),
)
TIMED = {"best", "verdict", "rounds", "largest", "seconds", "environment", "files"}
TIMED_TOO = {"test_accuracy", "per_class", "compared"}  # of the network that a clock chose


def formula(architecture: Architecture) -> Score:
    """Bigger is better, and every network has a whim of its own."""
    whim = int(architecture.id[:6], 16) / 0xFFFFFF
    return Score(1e7 / (macs(architecture) + 1e6) + 0.2 * whim, 0.5, 10)


class FormulaByParts:
    """The same losses, image by image: images differ alike for all networks, and a bit for each."""

    images = 350  # three blocks and a half

    def parts(self, architectures: Sequence[Architecture], first: int, last: int) -> list[Part]:
        return [self._part(architecture, first, last) for architecture in architectures]

    def _part(self, architecture: Architecture, first: int, last: int) -> Part:
        of_all, own = (np.random.default_rng(seed) for seed in (0, int(architecture.id[:6], 16)))
        noise = of_all.exponential(1.0, self.images) + own.normal(0, 0.1, self.images)
        losses = formula(architecture).negative_log_likelihood + noise[first:last]
        return Part(losses, int((losses < 1).sum()))


def run(strategy: Strategy, log: Path) -> SearchResult:
    if isinstance(strategy, Guided):
        parts = Parts(FormulaByParts(), log, CONTEXT)
        return Session(load_space("digits"), formula, (), strategy=strategy, parts=parts).run()
    return search("digits", formula, strategy=strategy, log=EvaluationLog(log, CONTEXT))


def kill_everywhere(strategy: Strategy, when: str, folder: Path, step: int = 1) -> int:
    """Kill a search at every `step`-th line of its log and run it again; how often it was killed.

    Raises AssertionError where a result or a log differs from the undisturbed one.
    """
    reference = run(strategy, folder / "whole.jsonl")
    lines = (folder / "whole.jsonl").read_bytes().splitlines()
    points = range(1, len(lines) + 1, step)
    for point in points:
        log = folder / f"{when}-{point}.jsonl"
        assert _in_fork(partial(_die_at, point, when, strategy, log)) == -signal.SIGKILL
        left = log.read_bytes()
        assert left.count(b"\n") == point - (when != "after"), "it died elsewhere"
        assert (when == "amid") == (not left.endswith(b"\n") and left != b"")
        assert run(strategy, log) == reference, f"another result after a kill {when} line {point}"
        assert log.read_bytes().splitlines() == lines, "scored twice, or lost"
    return len(points)


def _die_at(point: int, when: str, strategy: Strategy, log: Path) -> None:
    """Search, and be killed before, amid or after the `point`-th line of the log."""
    whole, seen = Lines.append, 0

    def append(self: Lines, record: dict[str, object]) -> None:
        nonlocal seen
        seen += 1
        if seen == point:
            if when == "amid":
                text = json.dumps(record, sort_keys=True).encode()
                os.write(self._file.fileno(), text[: len(text) // 2])
            elif when == "after":
                whole(self, record)
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, record)

    Lines.append = append  # type: ignore[method-assign,assignment]
    run(strategy, log)


def _in_fork(work: Callable[[], object]) -> int:
    """Run `work` in a fork of this process; the signal that ended it, negative, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def timeless(document: dict[str, object]) -> dict[str, object]:
    """A result without what a clock may change."""
    return {k: v for k, v in document.items() if k not in TIMED | TIMED_TOO}


def kill_the_real_search(
    kills: int, arguments: Sequence[str], folder: Path, seed: int
) -> list[str]:
    """Where the search was killed. Raises AssertionError where its result differs."""
    command = [sys.executable, "-m", "vitresnas.search", "--throughput-target", "1.5x", *arguments]
    command += ["--json", "--out"]
    reference = _finish([*command, str(folder / "whole")])
    lines = len((folder / "whole" / "evaluations.jsonl").read_bytes().splitlines())
    moments = sorted(Random(seed).sample(range(lines + lines // 4), kills))
    out, told = folder / "killed", []
    for moment in moments:
        process = subprocess.Popen(
            [*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # What lies beyond the last line is the proof: a share of its time.
        for _ in _until(out / "evaluations.jsonl", min(moment, lines)):
            assert process.poll() is None, "it ended before it was killed"
        time.sleep(max(0, moment - lines) / lines * 20)
        process.kill()
        process.wait()
        at = f"{_count(out / 'evaluations.jsonl')} of {lines} lines"
        told.append(at + (", in the proof" if moment > lines else ""))
        print("killed at", told[-1], file=sys.stderr, flush=True)
    assert timeless(_finish([*command, str(out)])) == timeless(reference), "another result"
    return told


def _finish(command: Sequence[str]) -> dict[str, object]:
    found = subprocess.run(command, stdout=subprocess.PIPE)
    assert found.returncode in (0, 4), f"exit code {found.returncode}"  # 4: the clock said no
    document: dict[str, object] = json.loads(found.stdout)
    return document


def _until(log: Path, lines: int) -> Iterator[None]:
    while _count(log) < lines:
        yield
        time.sleep(0.01)


def _count(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("formula", "digits"))
    parser.add_argument("--kills", type=int, default=10, help="of the real search")
    parser.add_argument("--seed", type=int, default=0)
    # argparse takes what follows -- for positional arguments, and has none to give them to.
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    arguments, theirs = parser.parse_args(given[:end]), given[end + 1 :]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        if arguments.what == "digits":
            told = kill_the_real_search(arguments.kills, theirs, folder, arguments.seed)
            killed = len(told)
        else:
            killed = 0
            for strategy in STRATEGIES:
                for when in WHEN:
                    (folder / strategy.name / when).mkdir(parents=True)
                    killed += kill_everywhere(strategy, when, folder / strategy.name / when)
    print(f"{killed} kills, every result identical, {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
