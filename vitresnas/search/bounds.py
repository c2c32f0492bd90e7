"""How far the mean of a sample may lie from the mean of all, at every look at once.

A hold-out of N images is met in random order, n of them so far. S_n, the sum so far, makes
(S_n - n mean) / (N - n) a martingale, whose variance after n images is that of one image times
t_n = n / ((N - 1) (N - n)): sampling without replacement is Brownian motion in the time t_n. What
bounds that motion at all times at once bounds the mean at all looks, however many there are and
whenever they end: the one-sided normal mixture (Howard et al., "Time-uniform, nonparametric,
nonasymptotic confidence sequences", Annals of Statistics 2021, section 3). The variance is
estimated from the sample, so the bound is an asymptotic confidence sequence (Waudby-Smith et al.,
"Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics
2024): differences of log-likelihoods have no bound that would be of use, and one that holds for
any distribution on a range needs tens of times the images. Tests measure how often it fails.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def lower_bound(sample: npt.NDArray[np.float64], of: int, error: float, tight_at: int) -> float:
    """What the mean of all `of` values exceeds, given the first of them in random order.

    With probability `error` at most it is too high at any look. `tight_at`: the number of values
    where it is to be tightest, half of all at most; it must not depend on the sample.
    """
    count = len(sample)
    mean = float(sample.mean())
    if count == of:
        return mean
    deviation = float(sample.std(ddof=1)) if count > 1 else math.inf
    return mean - deviation * radius(count, of, error, tight_at)


def radius(count: int, of: int, error: float, tight_at: int) -> float:
    """The bound's distance from the mean after `count` of `of` values, in deviations of one."""
    if count >= of:
        return 0.0
    # The mixture's width that is about the best at one time.
    wide = math.log(1 / (2 * error))
    mixing = _time(min(tight_at, (of + 1) // 2), of) / (2 * wide + math.log1p(2 * wide))
    time = _time(count, of) + mixing
    boundary = math.sqrt(2 * time * math.log1p(math.sqrt(time / mixing) / (2 * error)))
    return (of - count) / count * boundary


def _time(count: int, of: int) -> float:
    return count / ((of - 1) * (of - count))
