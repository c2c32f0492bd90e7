"""Write the tables of committed results into the documents that show them.

    python bench/tables.py                       README.md, bench/README.md and docs/
    python bench/tables.py --check README.md     exit code 2 where a table is not what results say

A table stands between `<!-- table: NAME -->` and `<!-- /table -->`. NAME is a file below
bench/results/ without its ending, then what its rows must hold and which view is wanted:

    <!-- table: cpu-xeon-2core/kernels op=variable_linear dtype=bf16 -->
    <!-- table: ahead-of-time/sm_90-triton-3.9.0 language=cuda view=rows -->

A result that is still to be taken has its place with `missing=told`: a sentence, until it is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vitresnas.doors import Parser, door, say
from vitresnas.errors import InputError
from vitresnas.files import atomic_write, read_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
MARKED = re.compile(r"(<!-- table: ([^>]+?) -->\n).*?(<!-- /table -->)", re.DOTALL)
Row = dict[str, Any]

PATHS = {
    "dense": "dense: the largest network, no masks",
    "masked": "masked: full width times masks, as in the paper",
    "masked-math": "masked, attention without SDPA",
    "masked-compiled": "masked, compiled by torch.compile",
    "sliced": "sliced: each group only its part",
    "fused": "fused: variable-width kernels",
    "fused-graph": "fused, replayed as one CUDA graph",
}


def supernet_step(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """Paths of a super-network step; ratios are those of the mean of the draws' fastest."""
    memory = any(row["peak_bytes"] for row in rows)
    dense = next((row["milliseconds_min"] for row in rows if row["path"] == "dense"), None)
    yield (
        "path", "median ms", "mean of the draws' fastest, ms",
        *(["over dense"] if dense else []), *(["peak MiB"] if memory else []),
    )  # fmt: skip
    for row in rows:
        fastest, peak = row["milliseconds_min"], row["peak_bytes"]
        yield (
            PATHS.get(row["path"]) or str(row["path"]),
            milliseconds(row["milliseconds_median"]),
            milliseconds(fastest),
            *([f"{fastest / dense:.2f}"] if dense else []),
            *([f"{peak / 2**20:,.0f}" if peak else "-"] if memory else []),
        )


def kernels(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """One line per use of an op: ranges over its shapes and widths."""
    yield (
        "op", "use", "direction", "active", "dtype", "backend", "shapes", "of the floor",
        "over the best with the same result", "over the best at full width", "by default",
    )  # fmt: skip
    known = [{**row, "active": "all" if row["active_share"] == 1 else "part"} for row in rows]
    for (op, use, direction, active, dtype, backend), found in grouped(
        known, "op", "case", "direction", "active", "dtype", "backend"
    ):
        timed = [row for row in found if "milliseconds_median" in row]
        yield (
            f"`{op}`", use, direction, active, dtype, backend,
            str(len(found)) if len(timed) == len(found) else f"{len(timed)} of {len(found)} agree",
            span([100 * row["floor_share"] for row in timed], "{:.0f}", " %"),
            span([row["speedup_over_exact"] for row in timed], "{:.2f}", "x"),
            span([over_full_width(row) for row in timed], "{:.2f}", "x"),
            ", ".join(sorted({row["default_backend"] for row in timed})),
        )  # fmt: skip


def over_full_width(row: Row) -> float:
    """Against what a layer without masks costs, which is not the same result unless all count."""
    full = [v for name, v in row["baseline_milliseconds"].items() if "full width" in name]
    return float(min(full) / row["milliseconds_median"])


def kernel_rows(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """Every shape on a line of its own."""
    yield (
        "op", "use", "direction", "shape", "active", "dtype", "backend", "error", "ms (20-80 %)",
        "of the floor", "over the best with the same result", "by default",
    )  # fmt: skip
    for row in rows:
        timed = "milliseconds_median" in row
        yield (
            f"`{row['op']}`", row.get("case", ""), row["direction"],
            " x ".join(map(str, row["shape"])), f"{row['active_share']:.2f}",
            row["dtype"], row["backend"], f"{row['max_error']:.0e}",
            f"{row['milliseconds_median']:.3g} ({row['milliseconds_20']:.3g}-"
            f"{row['milliseconds_80']:.3g})" if timed else "not timed",
            f"{row['floor_share']:.0%} ({row.get('floor_binds', 'bytes')})" if timed else "",
            f"{row['speedup_over_exact']:.2f}x {row['best_exact_baseline']}" if timed else "",
            row["default_backend"] if timed else "",
        )  # fmt: skip


def ahead_of_time(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """One line per kernel and dtype: ranges over its tiles."""
    yield (
        "op", "kernel", "direction", "language", "dtype", "variants", "registers", "spill bytes",
        "tensor-core instructions", "asynchronous copies", "16-byte loads",
    )  # fmt: skip
    named = [{**row, "dtype": row["variant"].get("dtype", "")} for row in rows]
    for (op, kernel, direction, language, dtype), found in grouped(
        named, "op", "kernel", "direction", "language", "dtype"
    ):
        yield (
            f"`{op}`", f"`{kernel}`", direction, language, dtype, str(len(found)),
            *(
                span([row[kind] for row in found], "{}")
                for kind in (
                    "registers", "spill_bytes", "tensor_core_instructions",
                    "async_copy_instructions", "wide_load_instructions",
                )
            ),
        )  # fmt: skip


def ahead_of_time_rows(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """Every compiled variant on a line of its own."""
    yield (
        "op", "kernel", "variant", "registers", "spill bytes", "shared bytes",
        "tensor-core instructions", "asynchronous copies",
    )  # fmt: skip
    for row in rows:
        variant = ", ".join(f"{name} {value}" for name, value in sorted(row["variant"].items()))
        yield (
            f"`{row['op']}`", f"`{row['kernel']}`", variant, str(row["registers"]),
            str(row["spill_bytes"]), str(row["shared_bytes"]),
            str(row["tensor_core_instructions"]), str(row["async_copy_instructions"]),
        )  # fmt: skip


def latency_table(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """The table's error on networks that it never saw; a row is a condition."""
    even = {row["validation"]["networks"] for row in rows}
    uniform = {row["validation_uniform"]["networks"] for row in rows}
    several = len(rows) > 1
    yield (
        *(["condition"] if several else []),
        f"{span(sorted(even), '{}')} networks, evenly spaced in log time",
        f"{span(sorted(uniform), '{}')} uniform draws",
    )
    for row in rows:
        condition = f"{row['dtype']}, batch {row['batch_size']}, {row['runtime']}"
        yield (
            *([condition] if several else []),
            *(
                f"mean error {found['mean_absolute_percentage_error']:.1f} %, "
                f"worst {found['worst_percent']:.1f} %, Kendall tau {found['kendall_tau']:.2f}"
                for found in (row["validation"], row["validation_uniform"])
            ),
        )


def rank_agreement(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """A condition's networks and choices by another condition's table; a row is such a pair."""
    yield (
        "run under", "chosen by the table of", "Kendall tau on held-out networks, as measured",
        "on uniform draws, as predicted", "best network differs", "which takes longer by",
    )  # fmt: skip
    for row in rows:
        choices = row["choices"]
        longer = [choice["longer_percent"] for choice in choices if choice["differs"]]
        yield (
            row["right"]["runtime"],
            row["other"]["runtime"],
            f"{row['measured_ranked_by_other']['kendall_tau']:.2f}",
            f"{row['uniform_draws']['kendall_tau']:.2f}",
            f"at {len(longer)} of {len(choices)} targets",
            span(longer, "{:.1f}", " %"),
        )


def search_cost(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """A line per target and method: what it spent, what it found, and since when its median has
    been as good as what evolution ends with. Ratios are of what evolution spent."""
    yield (
        "at least, images/s", "method", "image evaluations", "final true rank: median, mean (95 %)",
        "found the best", "as good as evolution from", "in all over in all",
        "in all over as good from", "as good from over as good from",
    )  # fmt: skip
    for row in rows:
        yardstick = next(
            other
            for other in rows
            if (other["method"], other["target_images_per_second"])
            == ("evolution", row["target_images_per_second"])
        )
        total, first = "image_evaluations_median", "evolutions_rank_reached_at"
        low, high = row["final_rank_mean_interval_95"]
        ratios = [(yardstick[total], row[total]) if row[first] else None]
        ratios += [(yardstick[name], row[first]) if row[first] else None for name in (total, first)]
        yield (
            f"{row['target_images_per_second']:,.0f}",
            f"{row['method']}: {row['what']}",
            f"{row[total]:,.0f}",
            f"{row['final_rank_median']:g}, {row['final_rank_mean']:.1f} ({low:.1f} to {high:.1f})",
            f"{row['found_the_best_share']:.0%}",
            f"{row[first]:,}" if row[first] else "never",
            *(f"{ratio[0] / ratio[1]:.1f}" if ratio else "-" for ratio in ratios),
        )


def search_fronts(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """A strategy under one target, or over the whole front, beside random draws."""
    yield "measure", "strategy", "networks scored", "mean (95 %)", "better than random by (95 %)"
    for row in rows:
        target = row["target_images_per_second"]
        values = []
        for name in ("mean", "better_than_random_by"):
            numbers = (row[name], *row[f"{name}_interval_95"])
            mean, low, high = (f"{number:.{1 if target else 3}f}" for number in numbers)
            values.append(f"{mean} ({low} to {high})")
        yield (
            f"true rank at {target:,.0f} images/s" if target else "hypervolume of the true front's",
            row["strategy"],
            f"{row['networks_scored']:.0f}",
            values[0],
            "-" if row["strategy"] == "random" else values[1],
        )


def samplers(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """A line per sampler: its hundred networks beside the first sampler's, and four networks."""
    yield (
        "sampler", "epochs", "trained for", "mean negative log-likelihood of the draws",
        f"over {rows[0]['sampler']}'s (95 %)", "largest", "median", "smallest", "best found",
    )  # fmt: skip
    for row in rows:
        mean, interval = row["difference"]["mean"], row["difference"]["interval_95"]
        yield (
            f"`{row['sampler']}`",
            str(row["epochs"]),
            f"{row['training_seconds']:.0f} s",
            f"{row['mean_negative_log_likelihood']:.3f}",
            f"{mean:+.3f} ({interval[0]:+.3f} to {interval[1]:+.3f})"
            if row is not rows[0]
            else "-",
            *(
                f"{100 * row[which]['test_accuracy']:.1f} %"
                for which in ("largest", "median", "smallest", "best")
            ),
        )


def against_designed(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """A contestant a line: how fast, how long it was trained, and what came out."""
    yield (
        "contestant", "images/s (95 %)", "of the found", "M MACs", "M parameters", "epochs",
        "training, s: planned, used", "hold-out NLL", "test accuracy (95 % of the images)",
    )  # fmt: skip
    for row in rows:
        low, high = row["interval_95"]
        worst, best = (100 * end for end in row["test_accuracy_interval_95"])
        far = "timm_network" in row and not row["within_tolerance"]
        yield (
            f"{row['contestant']}: {row['what']}",
            f"{row['images_per_second']:,.0f} ({low:,.0f} to {high:,.0f})",
            f"{row['relative']:.3f}" + (", too far" if far else ""),
            f"{row['macs'] / 1e6:,.1f}",
            f"{row['parameters'] / 1e6:,.2f}",
            str(row["epochs"]),
            f"{row['planned_seconds']:,.0f}, {row['used_seconds']:,.0f}",
            f"{row['holdout_negative_log_likelihood']:.4f}",
            f"{100 * row['test_accuracy']:.2f} % ({worst:.2f} to {best:.2f})",
        )


def inherited(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    """What networks of three sizes have from the super-network, a line each."""
    yield "network", "M MACs", "hold-out NLL", "test accuracy, inherited weights"
    for row in rows:
        yield (
            row["size"],
            f"{row['macs'] / 1e6:,.1f}",
            f"{row['negative_log_likelihood']:.4f}",
            f"{100 * row['test_accuracy']:.2f} %",
        )


# By how a result file's path begins, or its folder: the list of rows, and the views of it.
KINDS: dict[str, tuple[str, dict[str, Callable[[Sequence[Row]], Iterable[Sequence[str]]]]]] = {
    "kernels": ("rows", {"summary": kernels, "rows": kernel_rows}),
    "supernet_step": ("rows", {"summary": supernet_step}),
    "ahead-of-time": ("rows", {"summary": ahead_of_time, "rows": ahead_of_time_rows}),
    "latency_table": ("conditions", {"summary": latency_table}),
    "rank_agreement": ("agreements", {"summary": rank_agreement}),
    "search_cost": ("rows", {"summary": search_cost}),
    "search_fronts": ("rows", {"summary": search_fronts}),
    "samplers": ("rows", {"summary": samplers}),
    "against_designed_supernet": ("networks", {"summary": inherited}),
    "against_designed": ("contestants", {"summary": against_designed}),
}


def table(name: str) -> str:
    """The table of `name` (see the top) in Markdown."""
    path, *words = name.split()
    if bad := [word for word in words if "=" not in word]:
        raise InputError(f'"{bad[0]}" in the table "{name}" is no condition: write field=value')
    wanted = dict(word.split("=", 1) for word in words)
    view = wanted.pop("view", "summary")
    later = wanted.pop("missing", "") == "told"
    folder, _, stem = path.partition("/")
    kind = next((kind for kind in KINDS if stem.startswith(kind) or folder == kind), None)
    if kind is None:
        raise InputError(f'no table is known for results "{path}": use one of {", ".join(KINDS)}')
    rows_in, views = KINDS[kind]
    if view not in views:
        raise InputError(f'the view "{view}" of {kind} is unknown: use {", ".join(views)}')
    if later and not (RESULTS / f"{path}.json").exists():
        return "Not measured yet.\n"
    document = read(RESULTS / f"{path}.json")
    rows = [
        row
        for row in document[rows_in]
        if all(str(row.get(field)) == value for field, value in wanted.items())
    ]
    if not rows:
        raise InputError(f'the table "{name}" has no rows: change its conditions or its file')
    return markdown(views[view](rows))


def read(path: Path) -> dict[str, Any]:
    """A result of whatever schema version: what tables show is in all of them."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    schema = re.search(r'"schema": "vitresnas/(\w+)/(\d+)"', text)
    return read_json(path, schema[1], int(schema[2])) if schema else read_json(path, "bench")


def markdown(lines: Iterable[Sequence[str]]) -> str:
    head, *body = lines
    rows = [f"| {' | '.join(cells)} |\n" for cells in (head, *body)]
    rows.insert(1, "|" + "---|" * len(head) + "\n")
    return "".join(rows)


def grouped(rows: Sequence[Row], *fields: str) -> Iterable[tuple[tuple[Any, ...], list[Row]]]:
    """Rows that agree in `fields`, in the order in which they first appear."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(field, "") for field in fields), []).append(row)
    return found.items()


def span(values: Sequence[float], form: str, unit: str = "") -> str:
    """The least and the largest of `values`; one number where they print alike."""
    if not values:
        return "-"
    low, high = form.format(min(values)), form.format(max(values))
    return low + unit if low == high else f"{low} to {high}{unit}"


def milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def rewritten(text: str) -> str:
    """`text` with every marked table as the results have it."""
    if text.count("<!-- table:") != len(MARKED.findall(text)):
        raise InputError("a table is not closed: write <!-- /table --> on a line after it")
    return MARKED.sub(lambda found: found[1] + table(found[2]) + found[3], text)


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="bench/tables.py",
        description="Bring the tables in documents up to date with the committed results.",
        example="python bench/tables.py --check README.md",
    )
    parser.add_argument("files", nargs="*", type=Path, help="documents; all of ours if none")
    parser.add_argument("--check", action="store_true", help="change nothing, fail if one is stale")
    arguments = parser.parse_args(argv)
    ours = [ROOT / "README.md", ROOT / "bench" / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    stale = []
    for path in arguments.files or ours:
        if not path.is_file():
            raise InputError(f"there is no document {path}: check the path")
        text = path.read_text(encoding="utf-8")
        try:
            new = rewritten(text)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if new != text:
            stale.append(path)
            if not arguments.check:
                atomic_write(path, new.encode())
                say(f"rewrote the tables of {path}")
    if stale and arguments.check:
        names = ", ".join(map(str, stale))
        raise InputError(f"tables in {names} are not what results say: run python bench/tables.py")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
