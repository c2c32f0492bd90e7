"""A network of timm in the one loop, from random weights: a baseline by the same recipe."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn
from torch.optim import Optimizer

from vitresnas.data.evaluate import Evaluation, evaluate_model
from vitresnas.data.image_set import ImageSet
from vitresnas.data.share import Piece
from vitresnas.files import JsonObject, atomic_path, to_text
from vitresnas.models.timm_sized import KIND, TimmNetwork
from vitresnas.models.weights import sha256, to_bytes
from vitresnas.train.objectives import Objective, classification
from vitresnas.train.recipe import Recipe

NETWORK, WEIGHTS, CARD = "timm_network.json", "model.safetensors", "timm_card.json"


class TimmTask:
    """Any classifier of timm: images (B, 3, S, S) to logits (B, K)."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        self.network: TimmNetwork = recipe.timm
        self.cost = self.network.cost(classes)
        self.objective: Objective = classification
        self.grid = 1  # asked for by labels of tokens, and a foreign network has no head for them
        self.model: nn.Module = self.network.create(classes, recipe.drop_path)

    @property
    def description(self) -> str:
        options = "".join(f", {name} {value}" for name, value in self.network.options.items())
        return f"timm's {self.network.name} at {self.network.image_size} pixels{options}"

    def identity(self) -> JsonObject:
        # Another timm may build another network by the same name.
        return {"timm_network": self.network.to_json(), "timm": timm.__version__}

    def begin_epoch(self, epoch: int, optimizer: Optimizer, averages: Sequence[nn.Module]) -> None:
        pass

    def heads(
        self, images_BCHW: Tensor, epoch: int, step: int, piece: Piece
    ) -> Mapping[str, Tensor]:
        return {"class": self.model(images_BCHW)}

    def expected_macs(self, epoch: int) -> float:
        return self.cost.macs

    def scores(self, model: nn.Module, images: ImageSet, *, full: bool) -> dict[str, Evaluation]:
        return {"network": evaluate_model(model, images)}

    def save(self, model: nn.Module, out: Path, card: Mapping[str, Any]) -> None:
        """The network, its weights, and last a card that tells of both.

        timm reads them: `timm.create_model(name, img_size=image_size, num_classes=K,
        checkpoint_path=OUT/model.safetensors, **options)`.
        """
        weights = to_bytes(model.state_dict())
        facts = {
            "timm_network": self.network.to_json(),
            "macs": self.cost.macs,
            "parameters": self.cost.parameters,
            "weights_sha256": sha256(weights),
        }
        contents = {
            CARD: to_text("timm_card", {**card, **facts}).encode(),
            NETWORK: to_text(KIND, self.network.to_json()).encode(),
            WEIGHTS: weights,
        }
        # The stack unwinds from its end: the card comes last and says that all is there.
        with contextlib.ExitStack() as stack:
            for name, content in contents.items():
                stack.enter_context(atomic_path(out / name)).write_bytes(content)
