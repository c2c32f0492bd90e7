"""AdamW and its schedule, both timm's."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from vitresnas.train.recipe import Recipe


def create_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW; weight decay skips 1-D parameters and the prefix tokens (ViT-ResNAS, section 4).

    With `layer_decay` each layer's rate is that factor of the next one's, as in BEiT
    (arXiv 2106.08254).
    """
    from timm.optim import create_optimizer_v2

    groups = _by_layer(model, recipe) if recipe.layer_decay < 1 else _by_decay(model, recipe)
    optimizer = create_optimizer_v2(
        groups, opt="adamw", lr=recipe.learning_rate, betas=recipe.betas, fused=True
    )
    return cast(Optimizer, optimizer)


def _by_layer(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(
        model,
        weight_decay=recipe.weight_decay,
        no_weight_decay_list=getattr(model, "no_weight_decay", set)(),
        layer_decay=recipe.layer_decay,
    )
    return cast(list[dict[str, Any]], groups)


def _by_decay(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    told: set[str] = getattr(model, "no_weight_decay", set)()  # a network of timm names its own
    for name, parameter in model.named_parameters():
        is_free = parameter.ndim <= 1 or name.endswith("prefix_tokens") or name in told
        (free if is_free else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def create_schedule(optimizer: Optimizer, recipe: Recipe, steps_per_epoch: int) -> Any:
    """Linear warm-up, then a cosine to the final rate, step by step: `schedule.step_update(n)`."""
    from timm.scheduler import CosineLRScheduler

    steps = recipe.epochs * steps_per_epoch
    # A run shorter than its warm-up (a trial of one epoch) warms up for a fifth of it.
    warmup = min(recipe.warmup_epochs * steps_per_epoch, steps // 5)
    return CosineLRScheduler(
        optimizer,
        # One step alone keeps the peak rate either way; timm warns about a cosine of length 1.
        t_initial=max(2, steps - warmup),
        lr_min=recipe.final_learning_rate,
        warmup_t=warmup,
        warmup_lr_init=recipe.warmup_learning_rate,
        warmup_prefix=True,
        t_in_epochs=False,
    )
