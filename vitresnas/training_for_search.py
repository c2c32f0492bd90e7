"""What a search lets training do: make the super-network it lacks, train its finalists further.

Search and training know nothing of each other; who commands both brings them together here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from vitresnas.search.fine_tune import Tune
from vitresnas.search.job import SearchRequest
from vitresnas.search.prepare import Training, allowed_unreadable
from vitresnas.space import load_space
from vitresnas.train.precision import settled
from vitresnas.train.recipes import load_recipe, recipes_for, supernet_recipe
from vitresnas.train.run import run

_FINE_TUNING_RATE = 0.2  # of the recipe's: the weights are good already


def supernet_training(space: str, data: str | None, device: str) -> Training:
    """How to train a super-network where none was given. Raises InputError where no recipe fits."""
    recipe = settled(supernet_recipe(space, data), torch.device(device))
    return Training(recipe.name, recipe.shaping, lambda to, device: run(recipe, to, device=device))


def finalist_tuning(request: SearchRequest) -> Tune:
    """How a finalist is trained further: its space's recipe at a fifth of the learning rate."""
    base = load_recipe(recipes_for(load_space(request.space)).retrain)
    recipe = replace(
        base,
        name=f"{base.name}-short",
        data=request.data or "digits",
        seed=request.seed,
        epochs=request.finetune.epochs,
        warmup_epochs=0,
        learning_rate=_FINE_TUNING_RATE * base.learning_rate,
        average=0.0,
    )

    def tune(architecture: Path, supernet: Path, out: Path, device: str) -> object:
        own = replace(
            recipe,
            architecture=str(architecture),
            init="inherited",
            supernet=str(supernet),
            unreadable_share=max(request.unreadable_share, allowed_unreadable(supernet)),
        )
        return run(own, out, device=device)

    return tune
