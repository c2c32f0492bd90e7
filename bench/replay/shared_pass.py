"""Per-image likelihoods of many sub-networks of one super-network, each layer computed once.

Inherited weights are slices, so two sub-networks that agree in their first layers compute the same
there. Networks come in an order in which neighbours share these layers; the pass keeps what every
layer of the last network gave and goes on from where the next one differs.

B images, N tokens, C width, P prefix tokens, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitresnas.models.inference import InferenceViTRes, optimise_for_inference
from vitresnas.models.inference_parts import InferenceBlock
from vitresnas.space import Architecture
from vitresnas.supernet import Supernet

Key = tuple[int | bool, ...]


class SharedPass:
    """The layers of a super-network's sub-networks, ready to run: BatchNorm folded in, the last
    block for the class token alone (models/inference.py)."""

    def __init__(self, supernet: Supernet, networks: Iterable[Architecture]) -> None:
        self._layers: dict[Key, nn.Module] = {}
        self._ends: dict[int, InferenceViTRes] = {}
        for network in networks:
            keys, width = layer_keys(network), network.stages[-1].embed
            if width in self._ends and all(key in self._layers for key in keys):
                continue
            model = optimise_for_inference(supernet.extract(network))
            self._ends.setdefault(width, model)
            for key, layer in zip(keys, model.steps, strict=True):
                self._layers.setdefault(key, layer)

    @torch.inference_mode()
    def __call__(
        self, networks: Sequence[Architecture], images_BCHW: Tensor, labels_B: Tensor
    ) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
        """The true class's log-likelihoods (B,) and whether it was the likeliest, one by one."""
        path: list[Key] = []
        outputs: list[Tensor] = []
        for network in networks:
            keys = layer_keys(network)
            same = _agreeing(path, keys)
            del outputs[same:]
            for key in keys[same:]:
                layer = self._layers[key]
                x = outputs[-1] if outputs else images_BCHW
                # A block overwrites its input, which the next network may need again.
                outputs.append(layer(x.clone() if isinstance(layer, InferenceBlock) else x))
            path = keys
            end = self._ends[network.stages[-1].embed]
            logits_BK = end.head(end.norm(outputs[-1])[:, 0]).double()
            likelihoods_B = -F.cross_entropy(logits_BK, labels_B, reduction="none")
            yield likelihoods_B.numpy(), (logits_BK.argmax(1) == labels_B).numpy()


def layer_keys(network: Architecture) -> list[Key]:
    """What tells a network's layers from those of others, in order: each one's place and widths."""
    last = max((stage, position) for stage, position, _ in network.positions())
    keys: list[Key] = []
    before = 0
    for index, stage in enumerate(network.stages):
        keys.append((index, -1, before, stage.embed, last[0] < index))
        before = stage.embed
        for position, block in enumerate(stage.blocks):
            if block is not None:
                ends = (index, position) == last
                keys.append((index, position, stage.embed, block.heads, block.hidden, ends))
    return keys


def _agreeing(a: Sequence[Key], b: Sequence[Key]) -> int:
    """How many first elements are the same."""
    for place, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return place
    return min(len(a), len(b))
