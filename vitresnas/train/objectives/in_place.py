"""In-place distillation: the widest network learns the labels, the others its answers.

Yu, Huang: Universally Slimmable Networks and Improved Training Techniques, arXiv 1903.05134.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitresnas.train.objectives.classification import classification


def in_place_distillation(
    heads: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Logits by head of several networks on the same images, network after network.

    heads: (networks x B, K), the widest network first. targets: as for `classification`, of the B
    images. "loss" is the mean over networks; the source adds them up, which AdamW does not tell
    apart.
    """
    images = len(targets["class"])
    networks = len(heads["class"]) // images
    first = {name: logits[:images] for name, logits in heads.items()}
    taught = classification(first, targets)
    if networks == 1:
        return taught
    answers = {name: _answers(logits, networks - 1) for name, logits in first.items()}
    rest = classification({name: logits[images:] for name, logits in heads.items()}, answers)
    loss = (taught["loss"] + (networks - 1) * rest["loss"]) / networks
    return {"loss": loss, "taught": taught["loss"], "distilled": rest["loss"]}


def _answers(logits: Tensor, times: int) -> Tensor:
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.cat([logits.detach().to(wide).softmax(-1)] * times)
