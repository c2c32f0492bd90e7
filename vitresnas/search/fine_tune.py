"""The best finalists trained a little further on their own, before the final choice among them.

Inherited weights serve all sub-networks and none in particular; a few epochs alone may change which
is best. Every network here is one that the proof let pass, so speed is settled; the hold-out, which
neither training sees, decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vitresnas.data import Data
from vitresnas.doors import say
from vitresnas.models.model_directory import load_model
from vitresnas.search.candidate import Finalist
from vitresnas.search.check import KEPT
from vitresnas.search.result import SearchResult, Tuned
from vitresnas.search.score import score_model

# Trains the network of an architecture file, with weights inherited from a super-network, into a
# model directory on a device; goes on where an earlier attempt stopped.
Tune = Callable[[Path, Path, Path, str], object]


def fine_tune(
    result: SearchResult,
    top: int,
    tune: Tune,
    supernet: Path,
    data: Data,
    folder: Path,
    device: str,
) -> SearchResult:
    """The result with the `top` best finalists tuned into `folder`/ID, the best of them chosen.

    Where no finalist kept all bounds, nothing is tuned.
    """
    chosen = eligible(result)[:top]
    if not chosen:
        say("no finalist keeps all bounds: nothing is fine-tuned")
        return result
    tuned = []
    for number, finalist in enumerate(chosen, start=1):
        identifier, architecture = finalist.candidate.id, finalist.candidate.architecture
        say(f"fine-tuning {identifier}, {number} of {len(chosen)}")
        out = folder / identifier
        file = folder / f"{identifier}.json"
        architecture.save(file)
        tune(file, supernet, out, device)
        score = score_model(load_model(out, device), data.holdout)
        tuned.append(Tuned(identifier, score))
    best = min(tuned, key=lambda found: (found.score.negative_log_likelihood, found.id))
    winner = next(one for one in chosen if one.candidate.id == best.id)
    return replace(result, verdict=winner.verdict, best=winner, fine_tuned=tuple(tuned))


def eligible(result: SearchResult) -> tuple[Finalist, ...]:
    """Those that may win, best scores first: finalists of the last round that missed nothing; where
    nothing could be timed, the best."""
    if not result.rounds:
        return (result.best,)
    if result.verdict not in KEPT:
        return ()
    kept = (one for one in result.rounds[-1].finalists if one.verdict == result.verdict)
    return tuple(sorted(kept, key=lambda finalist: finalist.candidate.rank))
