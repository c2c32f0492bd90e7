"""Search a space with a score of your own: no super-network, no images, no torch.

    python examples/own_scorer.py

A scorer is any function from an Architecture to a number to be minimised. This one is a made-up
scaling law; yours may read a table, ask a server, or train each network for a minute. The log keeps
such scores: kill this script at any time, run it again, and it resumes where it was.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from vitresnas.search import EvaluationLog, best_under, parse_constraint, search
from vitresnas.space import Architecture, macs, parameters


def scaling_law(architecture: Architecture) -> float:
    """Lower is better: more computing and more parameters help, ever less; a favourite shape."""
    last = architecture.stages[-1]
    shape = sum(block is not None for block in last.blocks) / len(last.blocks)
    return 4.0 / macs(architecture) ** 0.15 + 2.0 / parameters(architecture) ** 0.2 - 0.01 * shape


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    log = EvaluationLog(folder / "evaluations.jsonl", context={"scorer": "scaling law, version 1"})

    for strategy in ("random", "evolution"):
        result = search("digits", scaling_law, ["macs=15M", "parameters=2M"], strategy, 0, log=log)
        best = result.best.candidate
        print(
            f"{strategy:<9} {len(result.history)} networks, best {best.id}: "
            f"{best.score.negative_log_likelihood:.4f}, {best.macs / 1e6:.1f} M MACs, "
            f"{best.parameters / 1e6:.2f} M parameters"
        )

    # Another bound, later: looked up, not searched again.
    small = best_under(result, [parse_constraint("macs=10M")]).candidate
    print(f"under 10 M MACs {small.id}: {small.score.negative_log_likelihood:.4f}")
    result.save(folder / "search_result.json")
    print(
        f"{len(log)} scores in {folder}; torch was {'' if 'torch' in sys.modules else 'not '}used"
    )


if __name__ == "__main__":
    main()
