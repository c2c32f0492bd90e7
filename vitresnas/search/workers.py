"""Many processes, one search: `torchrun --nproc-per-node N -m vitresnas.search ...`.

Rank 0 runs the search, and it alone writes. The others score the networks that it sends them, one
at a time, whoever is idle next. Scores depend on the network alone and the history on the order of
proposals, so who scores what, and when, changes nothing. What a worker was at when it died is
scored by another.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from queue import Queue
from typing import Any

import torch
import torch.distributed as dist

from vitresnas.doors import say
from vitresnas.errors import InputError, MismatchError, VitresnasError, WorkerLost
from vitresnas.files import JsonObject
from vitresnas.search.candidate import Score
from vitresnas.space import Architecture

# Rank 0 may be measuring or proving meanwhile; one that is gone is noticed by its connection.
_PATIENCE = timedelta(days=7)

Scorer = Callable[[Architecture], Score]
# From what rank 0 sends to a scorer, and to what it depends on: both sides must say the same.
Prepare = Callable[[JsonObject], tuple[Scorer, JsonObject]]


class Link:
    """JSON messages to and from one other rank, in order."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises WorkerLost."""
        content = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        with _lost(self.rank):
            dist.send(torch.tensor([len(content)]), self.rank)
            dist.send(content, self.rank)

    def receive(self) -> JsonObject:
        """Raises WorkerLost."""
        size = torch.zeros(1, dtype=torch.int64)
        with _lost(self.rank):
            dist.recv(size, self.rank)
            content = torch.zeros(int(size), dtype=torch.uint8)
            dist.recv(content, self.rank)
        message: JsonObject = json.loads(content.numpy().tobytes())
        return message

    def score(self, architecture: Architecture) -> Score:
        """Let the other rank score a network. Raises WorkerLost, and InputError where it cannot."""
        self.send({"architecture": architecture.to_json()})
        found = self.receive()
        if "error" in found:
            what = f"worker {self.rank} could not score architecture {architecture.id}"
            raise InputError(f"{what}: {found['error']}")
        return Score(**found["score"])


@contextlib.contextmanager
def _lost(rank: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what gloo says of a closed connection
        raise WorkerLost(f"worker {rank} is gone") from error


class Workers:
    """The other ranks, as rank 0 sees them; none where this process is alone."""

    def __init__(self, links: Sequence[Link] = ()) -> None:
        self._links = list(links)

    def __len__(self) -> int:
        return len(self._links)

    def prepare(self, task: JsonObject, depends_on: JsonObject) -> None:
        """Let every worker get ready to score. Raises InputError where one cannot, MismatchError
        where it would score something else."""
        for link in self._links:
            link.send({"prepare": task})
        for link in self._links:  # they get ready side by side
            found = link.receive()
            if "error" in found:
                raise InputError(f"worker {link.rank} cannot score: {found['error']}")
            if found["depends_on"] != json.loads(json.dumps(depends_on)):
                raise MismatchError(
                    f"worker {link.rank} would score {found['depends_on']}, this search is of "
                    f"{depends_on}: give all workers the same files"
                )

    def join(self, own: Scorer, slots: int) -> Scorer:
        """A scorer for `slots + len(self)` threads: in `slots` of them this process scores."""
        idle: Queue[Scorer] = Queue()
        for hand in (*([own] * slots), *(link.score for link in self._links)):
            idle.put(hand)

        def score(architecture: Architecture) -> Score:
            while True:
                hand = idle.get()
                try:
                    found = hand(architecture)
                except WorkerLost as lost:  # this hand does not come back
                    say(f"{lost}: its network {architecture.id} goes to another")
                    continue
                except BaseException:
                    idle.put(hand)
                    raise
                idle.put(hand)
                return found

        return score

    def stop(self) -> None:
        """Send everybody home."""
        for link in self._links:
            with contextlib.suppress(WorkerLost):
                link.send({"stop": True})


@contextlib.contextmanager
def joined() -> Iterator[Workers]:
    """Rank 0's workers, sent home at the end whatever happens."""
    with _group():
        workers = Workers([Link(other) for other in range(1, dist.get_world_size())])
        try:
            yield workers
        finally:
            workers.stop()


def serve(prepare: Prepare) -> int:
    """What every other rank does: score what rank 0 sends, until it says stop or is gone."""
    with _group(), contextlib.suppress(WorkerLost):
        boss = Link(0)
        score: Scorer | None = None
        while "stop" not in (message := boss.receive()):
            try:
                if "prepare" in message:
                    score, depends_on = prepare(message["prepare"])
                    boss.send({"depends_on": depends_on})
                else:
                    assert score is not None, "rank 0 prepares its workers first"
                    architecture = Architecture.from_json(message["architecture"])
                    boss.send({"score": asdict(score(architecture))})
            except (VitresnasError, RuntimeError) as error:
                boss.send({"error": f"{type(error).__name__}: {error}"})
    return 0


@contextlib.contextmanager
def _group() -> Iterator[None]:
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()
