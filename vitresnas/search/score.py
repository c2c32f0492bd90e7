"""SupernetScorer: a sub-network's hold-out likelihood and accuracy with inherited weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vitresnas.data import ImageSet
from vitresnas.data.evaluate import Evaluation, evaluate, evaluate_model
from vitresnas.data.image_set import SCORING_BATCH, normalise
from vitresnas.search.candidate import Score
from vitresnas.search.parts import Part
from vitresnas.space import Architecture
from vitresnas.supernet import Supernet

TRUNK_BUDGET_BYTES = 1 << 30


class SupernetScorer:
    """Scores architectures one at a time on a hold-out that stays on the device.

    Batches are fixed by index, so a score depends on nothing but the network, the images and
    `batch_size`: not on what was scored before. The trunk, which all sub-networks share, runs
    once where its features fit in `trunk_budget` bytes.
    """

    def __init__(
        self,
        supernet: Supernet,
        holdout: ImageSet,
        *,
        batch_size: int = SCORING_BATCH,
        trunk_budget: int = TRUNK_BUDGET_BYTES,
    ) -> None:
        device = next(supernet.parameters()).device
        self._supernet = supernet.eval()
        self._holdout = holdout.to(device)
        self._batch_size = batch_size
        # Any first part of a random order is a fair sample; class by class it would not be.
        order = np.random.default_rng(len(holdout)).permutation(len(holdout))
        self._order = torch.from_numpy(order)
        self._kept: list[tuple[Tensor, Tensor]] | None = None
        embedding = supernet.space.embedding
        # Features are (images, mid channels, side/2, side/2) in fp32.
        per_image = 4 * embedding.mid_channels * (supernet.space.image_size // 2) ** 2
        if per_image and per_image * len(holdout) <= trunk_budget:
            with torch.inference_mode():
                self._kept = list(self._trunk_batches())

    @torch.inference_mode()
    def __call__(self, architecture: Architecture) -> Score:
        def classify(features_BMHW: Tensor) -> Tensor:
            return self._classify(features_BMHW, (architecture,))

        batches = self._kept if self._kept is not None else self._trunk_batches()
        return score_of(evaluate(classify, batches))

    @property
    def images(self) -> int:
        return len(self._holdout)

    @torch.inference_mode()
    def parts(self, architectures: Sequence[Architecture], first: int, last: int) -> list[Part]:
        """All networks on the same images, of a random order, in one pass: see search/parts.py."""
        chosen = self._order[first:last]
        if self._kept is not None:
            batches = chosen // self._batch_size, chosen % self._batch_size
            pairs = list(zip(*(index.tolist() for index in batches), strict=True))
            features_BMHW = torch.stack([self._kept[b][0][i] for b, i in pairs])
        else:
            images_BCHW = normalise(self._holdout.images[chosen.to(self._holdout.images.device)])
            features_BMHW = self._supernet.forward_trunk(images_BCHW)
        groups, labels_B = len(architectures), self._holdout.labels[chosen.to(features_BMHW.device)]
        logits_BK = self._classify(features_BMHW.repeat(groups, 1, 1, 1), architectures).double()
        parts = []
        for logits_EK in logits_BK.chunk(groups):
            losses_E = nn.functional.cross_entropy(logits_EK, labels_B, reduction="none")
            correct = int((logits_EK.argmax(1) == labels_B).sum())
            parts.append(Part(losses_E.cpu().numpy(), correct))
        return parts

    def _classify(self, features_BMHW: Tensor, architectures: Sequence[Architecture]) -> Tensor:
        heads = self._supernet.forward_from_trunk(features_BMHW, architectures, patches=False)
        return torch.stack(list(heads.values())).mean(0)

    def _trunk_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images_BCHW, labels_B in self._holdout.batches(self._batch_size):
            yield self._supernet.forward_trunk(images_BCHW), labels_B


def score_model(model: nn.Module, images: ImageSet) -> Score:
    """The same score for a stand-alone network, on any split."""
    return score_of(evaluate_model(model, images))


def score_of(found: Evaluation) -> Score:
    return Score(found.negative_log_likelihood, found.accuracy, found.images)
