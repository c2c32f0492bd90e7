"""A finished search in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitresnas.doors import rows_of
from vitresnas.latency.difference import in_words
from vitresnas.search.check import MEASURE_ON
from vitresnas.search.result import SearchResult


def summary(result: SearchResult) -> str:
    """The verdict, then what was measured, found and chosen; for people."""
    best, target = result.best, result.target
    estimates = sum(result.estimated(result.find(one)) for one in result.pareto)
    loss, accuracy = best.candidate.score.negative_log_likelihood, best.candidate.score.accuracy
    weights = "fine-tuned" if result.fine_tuned else "inherited"
    rows = []
    if best.speed:
        low, high = best.speed.interval_95
        low_x, high_x = best.speed.relative_interval_95
        measured = (
            f"{best.speed.images_per_second:,.0f} images/s ({low:,.0f} to {high:,.0f}), "
            f"{best.speed.relative:.2f}x the largest ({low_x:.2f} to {high_x:.2f})"
        )
        rows.append(("measured", measured))
    if result.verdict == "undecided":
        rows.append(("what to do", MEASURE_ON))
    rows += [("bound", str(check)) for check in best.checks[1:]]
    rows += [("beside", str(model)) for model in result.compared]
    if result.table_difference:
        rows.append(("table", in_words(result.table_difference)))
    network = (
        f"{best.candidate.id}: {best.candidate.macs / 1e6:,.1f} M MACs, "
        f"{best.candidate.parameters / 1e6:,.2f} M parameters"
    )
    candidates = f"{len(result.history)}, of which {len(result.pareto)} on the front"
    rows += [
        ("predicted", f"{best.candidate.predicted_images_per_second:,.0f} images/s"),
        ("network", network),
        ("hold-out", f"accuracy {accuracy:.4f}, negative log-likelihood {loss:.4f}"),
        *(("fine-tuned", str(one)) for one in result.fine_tuned),
        ("test", f"accuracy {result.test_accuracy:.4f}, extracted, weights {weights}"),
        *_by_class(result.per_class),
        ("candidates", candidates + (f", {estimates} by an estimate" if estimates else "")),
    ]
    first = (
        f"{result.verdict}: {target['requested']} at batch {target['batch_size']}, "
        f"{target['dtype']}, {target['runtime']}, on {target['device']}"
    )
    return "\n".join([first, *rows_of(rows)])


def _by_class(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Test accuracies class by class, where classes are of unequal size."""
    from vitresnas.data.by_class import told_by_class

    if not found:
        return []
    told = told_by_class(found["names"], found["test_accuracy"], found["test_images"])
    return [("by class", told)] if told else []
