"""A guess of scores from few of them: a Gaussian process on what an architecture is made of.

The covariance of two networks' scores is a linear part, since every width and depth has an effect
of its own, and a smooth part for how they act together. A score on some of the images only is
believed the less the fewer they were. Sizes of all parts are chosen from a grid by the likelihood
of the scores (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, chapter 5).

N networks scored, M networks asked about, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

from vitresnas.space import Architecture, SearchSpace, macs, parameters

Array = npt.NDArray[np.float64]

# Shares of the variance of scores: the smooth part, and what no feature tells.
_SMOOTH = (0.1, 0.5)
_WHIM = (0.003, 0.03)
_LENGTHS = (1.0,)  # in units of the mean distance of two networks
# The variance of one image's loss, pair by pair, in units of the variance of scores.
_IMAGE = (3.0, 30.0, 300.0)


def features(space: SearchSpace, architectures: Sequence[Architecture]) -> Array:
    """(N, F): every choice between 0 and 1, 0 for what a skipped block has not, and the costs."""
    rows = [_features(space, architecture) for architecture in architectures]
    return np.array(rows) if rows else np.empty((0, len(_features(space, space.largest))))


@lru_cache(maxsize=1 << 14)
def _features(space: SearchSpace, architecture: Architecture) -> tuple[float, ...]:
    row = []
    for cost in (macs, parameters):
        low, high = math.log(cost(space.smallest)), math.log(cost(space.largest))
        row.append((math.log(cost(architecture)) - low) / ((high - low) or 1.0))
    for choices, stage in zip(space.stages, architecture.stages, strict=True):
        row.append(stage.embed / choices.embed[0])
        for block in stage.blocks:
            row.append(float(block is not None))
            row.append(0.0 if block is None else block.heads / choices.heads[0])
            row.append(0.0 if block is None else block.hidden / choices.hidden[0])
    return tuple(row)


def interpolation(known_NF: Array, asked_MF: Array) -> Array:
    """Weights (M, N), each row together 1, by which known networks foretell others: ordinary
    kriging. They depend on features alone, never on scores (Cressie, "Statistics for Spatial
    Data", 1993, section 3.2).
    """
    count = len(known_NF)
    scale_F = known_NF.std(0)
    scale_F = np.where(scale_F > 1e-9, scale_F, 1.0)
    known_NF, asked_MF = known_NF / scale_F, asked_MF / scale_F
    squared_NN = _squared_distances(known_NF, known_NF)
    unit = float(squared_NN.mean()) or 1.0
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = np.exp(-0.5 * squared_NN / unit) + 0.01 * np.eye(count)
    system[count, count] = 0.0
    across = np.ones((count + 1, len(asked_MF)))
    across[:count] = np.exp(-0.5 * _squared_distances(known_NF, asked_MF) / unit)
    weights_MN: Array = np.linalg.solve(system, across)[:count].T
    return weights_MN


@dataclass(frozen=True, eq=False)
class _Sizes:
    smooth: float
    whim: float
    length: float
    image: float


class Surrogate:
    """Fitted to scores (N,) of networks with features (N, F), each on so many (N,) images of `of`.

    Deterministic; needs at least 2 scores.
    """

    def __init__(self, features_NF: Array, scores_N: Array, images_N: Array, of: int) -> None:
        self._centre = features_NF.mean(0)
        self._scale = np.where(features_NF.std(0) > 1e-9, features_NF.std(0), np.inf)
        self._x_NF = self._standard(features_NF)
        self._mean = float(scores_N.mean())
        self._deviation = float(scores_N.std()) or 1.0
        y_N = (scores_N - self._mean) / self._deviation
        missing_N = 1 / images_N - 1 / of  # what the images not met leave open
        squared_NN = _squared_distances(self._x_NF, self._x_NF)
        self._unit = float(squared_NN.mean()) or 1.0
        best = -math.inf
        for sizes in (_Sizes(*values) for values in product(_SMOOTH, _WHIM, _LENGTHS, _IMAGE)):
            noise_N = sizes.whim + 1e-6 + sizes.image * missing_N
            covariance_NN = self._covariance(self._x_NF, squared_NN, self._x_NF, sizes)
            factor_NN = np.linalg.cholesky(covariance_NN + np.diag(noise_N))
            half_N = np.linalg.solve(factor_NN, y_N)
            # The overall variance is the one that fits best, in closed form.
            variance = float(half_N @ half_N) / len(y_N) or 1.0  # equal scores: any will do
            likelihood = -0.5 * len(y_N) * math.log(variance) - np.log(np.diag(factor_NN)).sum()
            if likelihood > best:
                best, self._sizes, self._variance = likelihood, sizes, variance
                self._factor_NN, self._half_N = factor_NN, half_N

    def predict(self, features_MF: Array, scored: Sequence[int] = ()) -> tuple[Array, Array]:
        """Means (N' + M,) and covariance of the scores on all images: of those among the scored
        networks that `scored` names by index, then of others with these features."""
        old = np.array(scored, dtype=int)
        x_MF = np.concatenate([self._x_NF[old], self._standard(features_MF)])
        sizes = self._sizes
        across_MN = self._covariance(x_MF, _squared_distances(x_MF, self._x_NF), self._x_NF, sizes)
        across_MN[np.arange(len(old)), old] += sizes.whim
        half_NM = np.linalg.solve(self._factor_NN, across_MN.T)
        own_MM = self._covariance(x_MF, _squared_distances(x_MF, x_MF), x_MF, sizes)
        own_MM += sizes.whim * np.eye(len(x_MF))
        means_M = self._mean + self._deviation * (half_NM.T @ self._half_N)
        scale = self._variance * self._deviation**2
        return means_M, scale * (own_MM - half_NM.T @ half_NM)

    def _standard(self, features_MF: Array) -> Array:
        standard: Array = (features_MF - self._centre) / self._scale
        return standard

    def _covariance(self, a_MF: Array, squared_MN: Array, b_NF: Array, sizes: _Sizes) -> Array:
        linear_MN = a_MF @ b_NF.T / a_MF.shape[1]
        smooth_MN = np.exp(-0.5 * squared_MN / (self._unit * sizes.length**2))
        total: Array = (1 - sizes.smooth) * linear_MN + sizes.smooth * smooth_MN
        return total


def _squared_distances(a_MF: Array, b_NF: Array) -> Array:
    squared: Array = (a_MF**2).sum(1)[:, None] + (b_NF**2).sum(1)[None] - 2 * a_MF @ b_NF.T
    return np.maximum(squared, 0)
