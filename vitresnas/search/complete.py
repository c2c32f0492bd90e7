"""A search that was left unproven, completed by times taken on the device that it was for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitresnas.cache import locked
from vitresnas.doors import say
from vitresnas.files import JsonObject
from vitresnas.latency.statistics import Measurement
from vitresnas.search.constraint import Constraint, Target
from vitresnas.search.folder import PICTURE
from vitresnas.search.picture import draw
from vitresnas.search.prove import Proof, time_finalists
from vitresnas.search.result import RESULT, Round, SearchResult

_ASKED = ("amount", "relative", "batch_size", "dtype", "runtime", "threads", "device")


def complete(
    folder: Path,
    winner: str,
    target: Mapping[str, Any],
    times: Sequence[Measurement],
    environment: JsonObject,
) -> SearchResult | None:
    """Prove the search of `folder`, if that is what it lacks, by times taken for it here.

    winner: the id of the network that was timed, under `target`, in `environment`. times: the
    largest network's, the winner's, and those of the existing models that the search asked for.
    Nothing is written where there is no unproven search of that winner, and nothing where it asks
    for something else than what was timed, such as another device; that is said.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    with locked(folder):
        result = SearchResult.load(path)
        if result.verdict != "unproven" or result.best.candidate.id != winner:
            return None
        for name in _ASKED:
            if result.target[name] != target[name]:
                say(
                    f"{path} stays unproven: it asks for {name.replace('_', ' ')} "
                    f"{result.target[name]}, and {target[name]} is what was timed"
                )
                return None
        done = _proved(result, times, environment)
        done.save(path)
        draw(done, folder / PICTURE)
    say(f"{path} was unproven and is {done.verdict} now")
    return done


def _proved(
    result: SearchResult, times: Sequence[Measurement], environment: JsonObject
) -> SearchResult:
    """The proof of a search, with the winner as its only finalist."""
    target, best, largest = result.target, result.best.candidate, result.largest.candidate
    proof = Proof(
        target=Target(target["amount"], target["relative"]),
        batch_size=target["batch_size"],
        predicted_largest=largest.predicted_images_per_second or 0.0,
        predicted_fastest=0.0,
        timer=lambda networks: times,
        search_on=lambda number, bounds, seen: (),
        constraints=tuple(Constraint(one.name, one.bound) for one in result.best.checks[1:]),
        compare=result.compared,
    )
    timed, (winner,), compared = time_finalists(proof, largest, [best])
    bias = proof.lower_end(winner) / proof.predicted(best)
    return replace(
        result,
        verdict=winner.verdict,
        best=winner,
        largest=timed,
        rounds=(Round(proof.target.amount, bias, (winner,)),),
        compared=compared,
        environment={**environment, "searched_on": dict(result.environment)},
    )
