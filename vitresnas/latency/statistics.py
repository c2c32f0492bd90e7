"""Numbers out of timings: quantiles, intervals, rank agreement, errors. numpy only.

Which statistic, and why. Other processes, interrupts and clocks only ever *add* time, and on a
shared machine they add it to a third or more of the samples. Prices (operations, and the networks
they are calibrated and validated on) are therefore the tenth percentile of interleaved rounds: what
the work takes when it is left alone, without resting on one lucky sample as the minimum would. On a
quiet machine it lies a few percent below the median. Proofs (`Measurement`) report the median with
its 95 % interval instead: what a user will see, disturbances included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BOOTSTRAP_DRAWS = 2000
BOOTSTRAP_SEED = 20210902


@dataclass(frozen=True)
class Measurement:
    """Raw samples of one network's forward pass, one per round, in milliseconds per batch.

    priority: under which they were taken, `real-time` or `normal`; see latency/priority.py.
    looks: how often the samples may be looked at before they are enough; see latency/decide.py.
    """

    samples_milliseconds: tuple[float, ...]
    priority: str = "normal"
    looks: int = 1

    @cached_property
    def median(self) -> float:
        return float(np.median(self.samples_milliseconds))

    @cached_property
    def interval_95(self) -> tuple[float, float]:
        """95 % interval of the median."""
        return interval_95(self.samples_milliseconds, self.looks)

    @property
    def p99(self) -> float:
        """What one call in a hundred exceeds: what batch 1 is judged by. Needs many samples."""
        return float(np.quantile(self.samples_milliseconds, 0.99))

    def images_per_second(self, batch_size: int) -> float:
        """By the median."""
        return 1000.0 * batch_size / self.median

    def images_per_second_interval_95(self, batch_size: int) -> tuple[float, float]:
        low, high = self.interval_95
        return 1000.0 * batch_size / high, 1000.0 * batch_size / low

    def speedup_over(self, slow: Measurement) -> tuple[float, tuple[float, float]]:
        """How many times faster than `slow`, with its 95 % interval.

        Both must come from one `time_interleaved` run: the ratio is taken round by round, so a
        machine that slows down for both cancels out.
        """
        pairs = zip(slow.samples_milliseconds, self.samples_milliseconds, strict=True)
        ratios = [theirs / ours for theirs, ours in pairs]
        return float(np.median(ratios)), interval_95(ratios, self.looks)


def interval_95(samples: Sequence[float], looks: int = 1) -> tuple[float, float]:
    """95 % interval of the median by bootstrap, with a fixed seed: same samples, same interval.

    Where `looks` are taken at a growing number of samples, the intervals of all together hold the
    median in 95 % of cases, so that each is wider (Bonferroni).
    """
    if not samples:
        raise ValueError("an interval needs at least one sample")
    values = np.asarray(samples, dtype=float)
    draws = np.random.default_rng(BOOTSTRAP_SEED).integers(
        len(values), size=(BOOTSTRAP_DRAWS, len(values))
    )
    outside = 0.025 / looks
    low, high = np.quantile(np.median(values[draws], axis=1), (outside, 1.0 - outside))
    return float(low), float(high)


def kendall_tau(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau-b: 1 when both orders agree, -1 when they are opposite, 0 if one is constant.

    Source: Kendall, "The treatment of ties in ranking problems" (1945).
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    upper = np.triu_indices(len(x), k=1)
    sign_x = np.sign(x[:, None] - x[None, :])[upper]
    sign_y = np.sign(y[:, None] - y[None, :])[upper]
    norm = float(np.sqrt(np.abs(sign_x).sum() * np.abs(sign_y).sum()))
    return float((sign_x * sign_y).sum()) / norm if norm else 0.0


def kendall_tau_interval_95(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray
) -> tuple[float, float]:
    """95 % interval of `kendall_tau` by bootstrap over the items, with a fixed seed.

    An item drawn twice ties with itself in both orders, which tau-b leaves out.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    sign_x = np.sign(x[:, None] - x[None, :]).astype(np.float32)
    sign_y = np.sign(y[:, None] - y[None, :]).astype(np.float32)
    size = len(x)
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(
        size, np.full(size, 1.0 / size), size=BOOTSTRAP_DRAWS
    )
    counts = draws.astype(np.float32)

    def total(pairs: np.ndarray) -> np.ndarray:
        """Sum over pairs of items, each as often as it was drawn."""
        return np.einsum("di,di->d", counts @ pairs, counts, dtype=np.float64)

    norm = np.sqrt(total(np.abs(sign_x)) * total(np.abs(sign_y)))
    taus = np.divide(total(sign_x * sign_y), norm, out=np.zeros_like(norm), where=norm > 0)
    low, high = np.quantile(taus, (0.025, 0.975))
    return float(low), float(high)


def percentage_errors(predicted: Sequence[float], measured: Sequence[float]) -> list[float]:
    """Absolute errors in percent of what was measured."""
    return [
        100.0 * abs(guess / truth - 1.0) for guess, truth in zip(predicted, measured, strict=True)
    ]


def relative_width(samples: Sequence[float]) -> float:
    """Width of the 95 % interval over the median."""
    low, high = interval_95(samples)
    return (high - low) / float(np.median(samples))


_PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)


def ridge(rows: np.ndarray, wanted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression on columns of about unit size, its penalty chosen by leave-one-out."""
    center, mean = rows.mean(axis=0), float(wanted.mean())
    columns, left = rows - center, wanted - mean
    best = (math.inf, np.zeros(columns.shape[1]))
    for penalty in _PENALTIES:
        gram = columns.T @ columns + penalty * np.eye(columns.shape[1])
        inverse = np.linalg.solve(gram, columns.T)
        # Leave-one-out without refitting: the residual over one minus the leverage.
        leverage = np.einsum("ij,ji->i", columns, inverse) + 1.0 / len(rows)
        weights = inverse @ left
        spare = np.maximum(1.0 - leverage, 1e-6)
        loss = float(np.mean(((left - columns @ weights) / spare) ** 2))
        best = min(best, (loss, weights), key=lambda pair: pair[0])
    return lambda new: mean + (new - center) @ best[1]


def p10_width(samples: Sequence[float]) -> float:
    """Width of the 95 % interval of the tenth percentile over that percentile.

    Without assumptions, by order statistics: the smallest sample is its lower end, and the upper
    end is the k-th, where k - 1 or fewer of n samples fall below the percentile 39 times in 40.
    """
    ordered = sorted(samples)
    size, below = len(ordered), 0.0
    for k in range(1, size + 1):
        below += math.comb(size, k - 1) * 0.1 ** (k - 1) * 0.9 ** (size - k + 1)
        if below >= 0.975:
            return (ordered[k - 1] - ordered[0]) / float(np.quantile(ordered, 0.1))
    return math.inf


Clock = Callable[[], float]
