"""A network's score on the hold-out, as it is and with its logits at their best temperature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitresnas.data import ImageSet
from vitresnas.files import Fields, JsonObject

_COLDEST, _HOTTEST, _HALVINGS = 1e-3, 1e3, 60


@dataclass(frozen=True)
class Scores:
    """`calibrated` is the negative log-likelihood (nats) after logits are divided by `temperature`,
    the one number that suits this network best: what is left is not a matter of confidence."""

    negative_log_likelihood: float
    accuracy: float
    calibrated: float
    temperature: float

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object, where: str = "the scores") -> Scores:
        fields = Fields(value, where)
        found = cls(
            fields.number("negative_log_likelihood", minimum=0),
            fields.number("accuracy", minimum=0),
            fields.number("calibrated", minimum=0),
            fields.number("temperature", minimum=0),
        )
        fields.done()
        return found


@torch.inference_mode()
def score(logits_of: Callable[[Tensor], Tensor], images: ImageSet, batch: int = 500) -> Scores:
    """Score `logits_of` (normalised images (B, 3, S, S) -> logits (B, K)) on a whole split."""
    parts = [(logits_of(images_BCHW), labels_B) for images_BCHW, labels_B in images.batches(batch)]
    logits_NK = torch.cat([logits for logits, _ in parts]).double()
    labels_N = torch.cat([labels for _, labels in parts])
    temperature = best_temperature(logits_NK, labels_N)
    return Scores(
        negative_log_likelihood=float(cross_entropy(logits_NK, labels_N)),
        accuracy=float((logits_NK.argmax(1) == labels_N).double().mean()),
        calibrated=float(cross_entropy(logits_NK / temperature, labels_N)),
        temperature=temperature,
    )


def best_temperature(logits_NK: Tensor, labels_N: Tensor) -> float:
    """Where the likelihood of logits / temperature is highest (Guo et al., arXiv 1706.04599).

    One image in N counts as labelled at random: a network without an error would else be told to
    be certain. The loss is convex in 1 / temperature; its slope is the mean logit by the predicted
    probabilities less that by the labels, so halving finds its zero.
    """
    right_N, any_N = logits_NK.gather(1, labels_N[:, None])[:, 0], logits_NK.mean(1)
    right_N = right_N + (any_N - right_N) / len(labels_N)
    low, high = 1 / _HOTTEST, 1 / _COLDEST
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        expected_N = ((middle * logits_NK).softmax(1) * logits_NK).sum(1)
        if float((expected_N - right_N).mean()) < 0:
            low = middle
        else:
            high = middle
    return float(1 / (low * high) ** 0.5)
