"""A teacher's answers for the distillation token (DeiT, arXiv 2012.12877, section 4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitresnas.train.objectives.classification import cross_entropy
from vitresnas.train.recipe import HARD


def teaching(
    heads: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    labels: str = HARD,
    temperature: float = 1.0,
) -> dict[str, Tensor]:
    """Half the class token's loss on the labels, half the distillation token's on the teacher.

    heads: logits (B, K) of class and distillation, and the teacher's. labels: "hard", the
    teacher's first choice; "soft", its distribution at `temperature` T: T^2 times the
    Kullback-Leibler divergence at that temperature.
    """
    wide = torch.promote_types(heads["class"].dtype, torch.float32)
    student, teacher = heads["distillation"].to(wide), heads["teacher"].detach().to(wide)
    if labels == HARD:
        learned = torch.nn.functional.cross_entropy(student, teacher.argmax(-1))
    else:
        learned = temperature**2 * torch.nn.functional.kl_div(
            (student / temperature).log_softmax(-1),
            (teacher / temperature).log_softmax(-1),
            log_target=True,
            reduction="batchmean",
        )
    known = cross_entropy(heads["class"], targets["class"])
    return {"loss": (known + learned) / 2, "class": known, "distillation": learned}
