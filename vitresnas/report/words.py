"""Networks, and what they took, in a few words."""

from __future__ import annotations

from vitresnas.latency.validation import Pair
from vitresnas.search.candidate import Candidate
from vitresnas.space.architecture import Architecture


def describe(architecture: Architecture) -> str:
    """One line per stage: width, then heads/hidden of its blocks, `-` where one is skipped."""
    lines = [architecture.id]
    for number, stage in enumerate(architecture.stages, 1):
        blocks = " ".join(f"{b.heads}/{b.hidden}" if b else "-" for b in stage.blocks)
        lines.append(f"stage {number}: {stage.embed} wide, heads/hidden {blocks}")
    return "\n".join(lines)


def describe_pair(pair: Pair) -> str:
    """A network, what a table says of it, and what it took."""
    return (
        f"{describe(pair.architecture)}\npredicted {pair.predicted:.3f} ms, measured "
        f"{pair.measured:.3f} ms ({100 * (pair.predicted / pair.measured - 1):+.1f} %)"
    )


def summarise(candidate: Candidate) -> str:
    """One line; the page draws the rest."""
    loss = candidate.score.negative_log_likelihood
    return f"{candidate.id}: negative log-likelihood {loss:.4f}"
