"""What the one loop trains: a super-network, or one network found in a search.

A network of timm, for comparison, is in timm_task.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitresnas.data.evaluate import Evaluation, evaluate, evaluate_model
from vitresnas.data.image_set import ImageSet
from vitresnas.data.load import Data
from vitresnas.data.share import Piece
from vitresnas.data.streams import stream
from vitresnas.errors import DataError
from vitresnas.files import JsonObject
from vitresnas.models import ViTRes, create_model
from vitresnas.models.model_directory import find_model, load_model, save_model
from vitresnas.models.weights import digest_of
from vitresnas.space import Architecture, SearchSpace, load_space, macs
from vitresnas.supernet.directory import load_supernet, save_supernet
from vitresnas.supernet.samplers import load_sampler
from vitresnas.supernet.sorting import sort_channels
from vitresnas.supernet.supernet import Supernet
from vitresnas.train.objectives import (
    Objective,
    classification,
    in_place_distillation,
    teaching,
)
from vitresnas.train.recipe import SUPERNET, Recipe
from vitresnas.train.teacher import Teacher

RANDOM_REPORTED = 3  # random sub-networks in a super-network's report


class Task(Protocol):
    """The seam between the loop and what it trains."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def description(self) -> str: ...

    @property
    def grid(self) -> int:
        """The side of the last stage's patch grid."""

    @property
    def objective(self) -> Objective:
        """What the logits of `heads` are trained for."""

    def identity(self) -> JsonObject:
        """What decides the result besides recipe and data."""

    def begin_epoch(
        self, epoch: int, optimizer: Optimizer, averages: Sequence[nn.Module]
    ) -> None: ...

    def heads(
        self, images_BCHW: Tensor, epoch: int, step: int, piece: Piece
    ) -> Mapping[str, Tensor]:
        """Logits by head, in training mode, of the images of one piece of a batch."""

    def expected_macs(self, epoch: int) -> float:
        """MACs per image and forward pass at this epoch, for the ETA."""

    def scores(self, model: nn.Module, images: ImageSet, *, full: bool) -> dict[str, Evaluation]:
        """Scores by name; `full` adds what only the last report needs."""

    def save(self, model: nn.Module, out: Path, card: Mapping[str, Any]) -> None: ...


def create_task(recipe: Recipe, data: Data, *, to_train: bool = True) -> Task:
    """The task a recipe asks for, its weights initialised from the recipe's seed.

    A super-network's recipe comes with its path decided: see `settled` in precision.py.
    to_train: False for a look, which downloads no weights of a teacher.
    """
    torch.manual_seed(stream(recipe.seed, "init"))
    if recipe.task == SUPERNET:
        return SupernetTask(recipe, supernet_space(recipe, data))
    if recipe.foreign:
        from vitresnas.train.timm_task import TimmTask  # timm takes a second to import

        return TimmTask(recipe, len(data.class_names))
    return RetrainTask(recipe, len(data.class_names), to_train=to_train)


def image_size(recipe: Recipe) -> int:
    """The side of the images that a recipe's networks read."""
    if recipe.task == SUPERNET:
        return load_space(recipe.space).image_size
    if recipe.foreign:
        return recipe.timm.image_size
    return recipe.network.image_size


def supernet_space(recipe: Recipe, data: Data) -> SearchSpace:
    """The recipe's space with the data's classes."""
    return load_space(recipe.space).with_data(classes=len(data.class_names))


def drawn_at(recipe: Recipe, space: SearchSpace, epoch: int, step: int) -> tuple[Architecture, ...]:
    """The sub-networks that a step of a super-network's training runs, as its sampler says."""
    rng = Random(stream(recipe.seed, "architectures", epoch, step))
    return _draw(recipe, space, rng, epoch)


def _draw(recipe: Recipe, space: SearchSpace, rng: Random, epoch: int) -> tuple[Architecture, ...]:
    return load_sampler(recipe.sampler).draw(
        space, recipe.groups, rng, epoch=epoch, widening_epochs=recipe.widening_epochs
    )


@dataclass
class SupernetTask:
    """Every step runs one drawn sub-network per group of the batch.

    The groups of a whole batch are drawn together, near-balanced, and every process runs its own:
    how many processes share the work does not change which networks a step trains.
    """

    recipe: Recipe
    space: SearchSpace

    def __post_init__(self) -> None:
        self.sampler = load_sampler(self.recipe.sampler)
        self.model = Supernet(
            self.space,
            drop_path=self.recipe.drop_path,
            patch_head=self.recipe.mixing.tokens,
            path=self.recipe.path,
        )

    @property
    def description(self) -> str:
        return (
            f"super-network of {self.space.name} ({self.space.size:.1e} networks), "
            f"{self.sampler.name} sampling"
        )

    @property
    def grid(self) -> int:
        return self.space.largest.grids[-1]

    @property
    def objective(self) -> Objective:
        return in_place_distillation if self.sampler.shares_images else classification

    def identity(self) -> JsonObject:
        return {"space_id": self.space.id}

    def begin_epoch(self, epoch: int, optimizer: Optimizer, averages: Sequence[nn.Module]) -> None:
        if self.recipe.widening_epochs and epoch <= self.recipe.widening_epochs:
            sort_channels(self.model, optimizer, averages)

    def heads(
        self, images_BCHW: Tensor, epoch: int, step: int, piece: Piece
    ) -> Mapping[str, Tensor]:
        drawn = drawn_at(self.recipe, self.space, epoch, step)
        if self.sampler.shares_images:
            trunk_BMHW = self.model.forward_trunk(images_BCHW)  # the same for all networks
            return self.model.forward_from_trunk(trunk_BMHW.repeat(len(drawn), 1, 1, 1), drawn)
        return self.model.forward_heads(images_BCHW, piece.of(drawn))

    def expected_macs(self, epoch: int) -> float:
        rng = Random(stream(self.recipe.seed, "expected_macs", epoch))
        drawn = [a for _ in range(8) for a in _draw(self.recipe, self.space, rng, epoch)]
        networks = len(drawn) // 8 if self.sampler.shares_images else 1
        return networks * sum(map(macs, drawn)) / len(drawn)

    def scores(self, model: nn.Module, images: ImageSet, *, full: bool) -> dict[str, Evaluation]:
        rng = Random(stream(self.recipe.seed, "reported"))
        chosen = {"largest": self.space.largest, "smallest": self.space.smallest}
        for number in range(RANDOM_REPORTED if full else 0):
            chosen[f"random_{number + 1}"] = self.space.sample(rng)
        model.eval()
        found = {
            name: evaluate(partial(_run_alone, model, architecture), images.batches())
            for name, architecture in chosen.items()
        }
        model.train()
        return found

    def save(self, model: nn.Module, out: Path, card: Mapping[str, Any]) -> None:
        save_supernet(cast(Supernet, model), out, card)


def _run_alone(model: nn.Module, architecture: Architecture, images_BCHW: Tensor) -> Tensor:
    return cast(Tensor, model(images_BCHW, (architecture,)))


class RetrainTask:
    """One architecture, from random or inherited weights."""

    def __init__(self, recipe: Recipe, classes: int, *, to_train: bool = True) -> None:
        self.recipe = recipe
        self.architecture = recipe.network
        self.model: ViTRes
        if recipe.init == "inherited":
            supernet = load_supernet(recipe.supernet)
            self._check_classes(
                supernet.space.classes, f"the super-network {recipe.supernet}", classes
            )
            self._check_classes(self.architecture.classes, "the architecture", classes)
            self.model = self._create()
            self._start_from(supernet.extract(self.architecture))
        elif recipe.init == "trained":
            trained = load_model(find_model(recipe.architecture))
            self._check_classes(trained.architecture.classes, "the network", classes)
            self.model = self._create()
            self._start_from(trained.at_resolution(self.architecture.image_size))
        else:
            # Only the classifier knows the classes, and it starts from random numbers anyway.
            self.architecture = replace(self.architecture, classes=classes)
            self.model = self._create()

        self.teacher: Teacher | None = None
        if recipe.teacher:
            side = self.architecture.image_size
            self.teacher = Teacher(recipe.teacher, classes, side, pretrained=to_train)

    def _start_from(self, trained: ViTRes) -> None:
        """Take its weights; a patch head, which only training needs, may be missing on one side."""
        mine, theirs = self.model.state_dict(), trained.state_dict()
        self.model.load_state_dict({name: theirs.get(name, mine[name]) for name in mine})

    def _create(self) -> ViTRes:
        return create_model(
            self.architecture,
            drop_path=self.recipe.drop_path,
            patch_head=self.recipe.mixing.tokens,
        )

    @property
    def grid(self) -> int:
        return self.architecture.grids[-1]

    @property
    def objective(self) -> Objective:
        if self.teacher is None:
            return classification
        recipe = self.recipe
        return partial(teaching, labels=recipe.distillation, temperature=recipe.temperature)

    @property
    def description(self) -> str:
        teacher = f", taught by {self.recipe.teacher}" if self.recipe.teacher else ""
        return (
            f"network {self.architecture.id} at {self.architecture.image_size} pixels, "
            f"{self.recipe.init} weights{teacher}"
        )

    def identity(self) -> JsonObject:
        identity: JsonObject = {"architecture_id": self.architecture.id}
        if self.recipe.init != "random":
            identity["initial_weights"] = digest_of(self.model.state_dict())[:12]
        if self.teacher is not None:
            identity["teacher_weights"] = digest_of(self.teacher.model.state_dict())[:12]
        return identity

    def begin_epoch(self, epoch: int, optimizer: Optimizer, averages: Sequence[nn.Module]) -> None:
        pass  # one network: nothing is sorted, nothing widens

    def heads(
        self, images_BCHW: Tensor, epoch: int, step: int, piece: Piece
    ) -> Mapping[str, Tensor]:
        logits = self.model.forward_heads(images_BCHW)
        if self.teacher is not None:
            logits["teacher"] = self.teacher(images_BCHW)
        return logits

    def expected_macs(self, epoch: int) -> float:
        return macs(self.architecture)

    def scores(self, model: nn.Module, images: ImageSet, *, full: bool) -> dict[str, Evaluation]:
        return {"network": evaluate_model(model, images)}

    def save(self, model: nn.Module, out: Path, card: Mapping[str, Any]) -> None:
        save_model(cast(ViTRes, model), out, card)

    def _check_classes(self, found: int, what: str, classes: int) -> None:
        if found != classes:
            raise DataError(
                f"{what} has {found} classes and the data {classes}: inherit from a super-network "
                "trained on this data, or use --init random"
            )
