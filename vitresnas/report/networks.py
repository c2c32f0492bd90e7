"""What the page's script knows of every network: enough to draw and to compare any two."""

from __future__ import annotations

import json
from collections.abc import Iterator

from vitresnas.files import JsonObject
from vitresnas.report.search_charts import ORIGINS, later, timed
from vitresnas.search.candidate import Candidate
from vitresnas.search.constraint import COSTS
from vitresnas.search.result import SearchResult
from vitresnas.space.architecture import Architecture


def networks(result: SearchResult) -> str:
    """Two script elements: the networks by id, and which two are compared at first."""
    speeds = {f.candidate.id: f.speed for f in timed(result)}
    largest, best = result.largest.candidate, result.best.candidate
    found: JsonObject = {}
    for number, candidate in _all(result):
        speed = speeds.get(candidate.id)
        found[candidate.id] = {
            "number": number,
            "origin": ORIGINS[min(len(candidate.parents), 2)] if number else "",
            "loss": candidate.score.negative_log_likelihood,
            "accuracy": candidate.score.accuracy,
            "images": candidate.score.images,
            "predicted": candidate.predicted_images_per_second,
            "measured": speed and [speed.images_per_second, *speed.interval_95],
            "macs": candidate.macs,
            "parameters": candidate.parameters,
            "costs": {f"{name}, {COSTS[name].unit}": cost for name, cost in candidate.costs},
            "stages": _stages(candidate.architecture),
        }
    roles = {"winner": best.id, "largest": largest.id}
    return _script("networks", found) + _script("roles", roles)


def _all(result: SearchResult) -> Iterator[tuple[int, Candidate]]:
    """Every network with its place in the order of scoring; 0 for the largest, no candidate."""
    yield 0, result.largest.candidate
    for finalist in timed(result):
        yield 0, finalist.candidate
    yield from enumerate((*result.history, *later(result)), 1)


def _stages(architecture: Architecture) -> list[list[object]]:
    """[tokens, width, [[attention channels, hidden channels, heads] or 0, ...]] per stage."""
    return [
        [
            tokens,
            stage.embed,
            [[b.heads * stage.head_dim, b.hidden, b.heads] if b else 0 for b in stage.blocks],
        ]
        for tokens, stage in zip(architecture.tokens, architecture.stages, strict=True)
    ]


def _script(name: str, value: JsonObject) -> str:
    """JSON as a script element; a `<` could end it early."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'
