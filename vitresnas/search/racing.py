"""Racing: candidates meet growing parts of the hold-out and leave once they are clearly behind.

A candidate's losses are compared with those of networks that have met every image, on the same
images: its loss on an image is foretold from theirs, by weights that come from the architectures
alone (surrogate.py), and only the mean of what is left is unknown. What makes an image hard
cancels, and so does what similar networks make of it; with one finished network this is the plain
paired difference. A candidate leaves where the lower bound (bounds.py) of its score over the whole
hold-out is above the best score known. The bound holds at all looks at once: a network that is
better than the best leaves with probability `error` at most.

Who stays to the end has the score that full scoring gives. Who left has the estimate that it left
with, which lies above the best score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitresnas.errors import InputError
from vitresnas.search.bounds import lower_bound
from vitresnas.search.candidate import Candidate, Score
from vitresnas.search.constraint import Throughput
from vitresnas.search.evaluate import Progress, candidate_of
from vitresnas.search.parts import BLOCK, Part, Parts
from vitresnas.search.strategy import Proposal
from vitresnas.search.surrogate import features, interpolation
from vitresnas.space import Architecture, SearchSpace

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Racing:
    """When candidates are looked at, and how sure one must be to let a candidate go.

    Looks come after 1, `growth`, `growth`^2, ... blocks of images; `heat` candidates run at a time.
    steps: whether a strategy decides at every look who meets more images.
    """

    error: float = 0.05
    growth: float = 2.0
    heat: int = 8
    steps: bool = False

    def __post_init__(self) -> None:
        if self.growth <= 1 or self.heat < 1 or not 0 < self.error < 0.5:
            raise InputError(
                f"racing runs heats of {self.heat}, with looks that grow by {self.growth} and "
                f"error {self.error}: use at least 1, above 1, and between 0 and 0.5"
            )

    def looks(self, blocks: int) -> tuple[int, ...]:
        """How many blocks each look has seen; the last one has seen all."""
        looks = [1]
        while looks[-1] < blocks:
            looks.append(min(max(int(looks[-1] * self.growth), looks[-1] + 1), blocks))
        return tuple(looks)


@dataclass(eq=False)
class _Runner:
    """A network in a race.

    order: the blocks in the order in which it meets them. known: who had finished when it entered.
    losses_I: of all images, NaN where it has not met them.
    """

    entry: Candidate  # without its score
    features_F: Array
    order: tuple[int, ...]
    known: tuple[_Runner, ...]
    losses_I: Array
    looked: int = 0  # blocks
    correct: int = 0
    running: bool = True
    left_with: float | None = None  # its score as it was estimated when it left

    @property
    def met_I(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.losses_I)

    @property
    def met(self) -> int:
        return int(self.met_I.sum())

    def take(self, number: int, part: Part) -> None:
        self.losses_I[number * BLOCK : number * BLOCK + len(part.losses)] = part.losses
        self.correct += part.correct


class RacingEvaluator:
    """Scores proposals as Evaluator does, with few images for what is clearly behind.

    A race goes to its end, or in steps: then every call lets its proposals meet the images up to
    their next look, and a strategy proposes again what it would know better. Candidates'
    `score.images` tells how many each has met.
    """

    def __init__(
        self,
        racing: Racing,
        parts: Parts,
        space: SearchSpace,
        throughput: Throughput | None,
        progress: Progress = lambda _: None,
        costs: Sequence[str] = (),
    ) -> None:
        self._racing = racing
        self._costs = tuple(sorted(costs))
        self._parts = parts
        self._looks = racing.looks(parts.blocks)
        self._space = space
        self._throughput = throughput
        self._progress = progress
        self._runners: dict[str, _Runner] = {}
        self._finished: list[_Runner] = []
        self._heats = 0
        self.admits: Callable[[Architecture], bool] = lambda _: True  # in the round that runs

    @property
    def candidates(self) -> list[Candidate]:
        """All so far, in order, with what is known of them by now."""
        return self._candidates(list(self._runners.values()))

    @property
    def open(self) -> frozenset[str]:
        """The ids of those that may meet more images."""
        return frozenset(name for name, runner in self._runners.items() if runner.running)

    def __call__(self, proposals: Sequence[Proposal]) -> list[Candidate]:
        # The very first runs alone: everybody else is compared with networks that have finished.
        starts = range(0, len(proposals), self._racing.heat)
        heats = [proposals[start : start + self._racing.heat] for start in starts]
        if proposals and not self._runners:
            self._heat(proposals[:1], to_the_end=True)
        for heat in heats:
            self._heat(heat, to_the_end=not self._racing.steps)
        return self._candidates([self._runners[p.architecture.id] for p in proposals])

    def one(self, proposal: Proposal) -> Candidate:
        """Score a single network on all images without counting it as a candidate."""
        runner = self._enter(proposal)
        while runner.looked < self._looks[-1]:
            self._look([runner])
        runner.running = False
        return self._candidates([runner])[0]

    def _heat(self, proposals: Sequence[Proposal], to_the_end: bool) -> None:
        for proposal in proposals:
            if proposal.architecture.id not in self._runners:
                self._runners[proposal.architecture.id] = self._enter(proposal)
        self._heats += 1
        heat = [self._runners[proposal.architecture.id] for proposal in proposals]
        # Only against who may win: a later round excludes networks that lead by their score.
        rivals = (other for other in self._finished if self.admits(other.entry.architecture))
        best = min((float(other.losses_I.mean()) for other in rivals), default=np.inf)
        while running := [runner for runner in heat if runner.running]:
            self._look(running)
            for runner in running:
                if runner.looked == self._looks[-1]:
                    runner.running = False
                    self._finished.append(runner)
                else:
                    self._judge(runner, best)
            if not to_the_end:
                break
        self._progress(len(self._runners))

    def _enter(self, proposal: Proposal) -> _Runner:
        # Each heat starts one block further than the one before it: what all networks teach
        # together then rests on all images, not on the first ones again and again.
        blocks = self._parts.blocks
        entry = candidate_of(proposal, Score(np.nan), self._throughput, self._costs)
        return _Runner(
            entry,
            features(self._space, [proposal.architecture])[0],
            tuple((self._heats + place) % blocks for place in range(blocks)),
            tuple(self._finished),
            np.full(self._parts.images, np.nan),
        )

    def _look(self, runners: Sequence[_Runner]) -> None:
        """Let runners meet the images up to the next look of each."""
        wanted: dict[int, list[_Runner]] = {}
        for runner in runners:
            look = next(look for look in self._looks if look > runner.looked)
            for number in runner.order[runner.looked : look]:
                wanted.setdefault(number, []).append(runner)
            runner.looked = look
        for number, group in wanted.items():
            parts = self._parts.block([runner.entry.architecture for runner in group], number)
            for runner, part in zip(group, parts, strict=True):
                runner.take(number, part)

    def _judge(self, runner: _Runner, best: float) -> None:
        """Let a runner leave that is behind the best."""
        if not runner.known:
            return
        # What foretells it was settled before its first image: else the bound would not hold.
        (foretold_I,) = _foretold([runner], runner.known)
        rest = (runner.losses_I - foretold_I)[runner.met_I]
        bound = lower_bound(rest, self._parts.images, self._racing.error, 4 * BLOCK)
        if float(foretold_I.mean()) + bound > best:
            runner.running, runner.left_with = False, float(foretold_I.mean() + rest.mean())

    def _candidates(self, runners: Sequence[_Runner]) -> list[Candidate]:
        return [
            replace(runner.entry, score=Score(mean, runner.correct / runner.met, runner.met))
            for runner, mean in zip(runners, self._estimates(runners), strict=True)
        ]

    def _estimates(self, runners: Sequence[_Runner]) -> list[float]:
        """Means over all images: of those met, and of what finished networks foretell."""
        means = []
        unsure = [runner for runner in runners if runner.running]
        foretold = iter(_foretold(unsure, self._finished) if unsure else ())
        for runner in runners:
            if runner.left_with is not None:
                means.append(runner.left_with)
            elif not runner.running:
                means.append(float(runner.losses_I.mean()))
            else:
                foretold_I: Array = next(foretold)
                ahead = (runner.losses_I - foretold_I)[runner.met_I]
                means.append(float(foretold_I.mean() + ahead.mean()))
        return means


def _foretold(runners: Sequence[_Runner], known: Sequence[_Runner]) -> Array:
    """Their losses on all images (M, I), as finished networks foretell them."""
    weights_MN = interpolation(
        np.stack([other.features_F for other in known]),
        np.stack([runner.features_F for runner in runners]),
    )
    foretold_MI: Array = weights_MN @ np.stack([other.losses_I for other in known])
    return foretold_MI
