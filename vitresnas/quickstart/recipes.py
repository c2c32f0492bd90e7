"""The two recipes of a quickstart: digits' or cifar-nano's, with what the plan decided."""

from __future__ import annotations

from vitresnas.data.augmentation import Augmentation
from vitresnas.data.mixing import Mixing
from vitresnas.train.recipe import SUPERNET, Recipe, retraining

# All of it runs on whole batches on the device, so it needs no workers.
GREY = Augmentation(shift=0.08, scale=0.1, rotate=8.0)  # as for digits: mirrored, a 2 is no 2
COLOUR = Augmentation(shift=0.1, scale=0.1, flip=0.5)


def batch_of(training: int, device_type: str) -> tuple[int, int]:
    """(images, sub-networks) in a step: some thirty steps in an epoch, within bounds."""
    most = 512 if device_type == "cuda" else 128
    batch = 32
    while batch < most and training // (2 * batch) >= 30:
        batch *= 2
    return batch, max(2, batch // 32)


def supernet_recipe(
    *,
    data: str,
    space: str,
    batch_size: int,
    groups: int,
    epochs: int,
    grey: bool,
    seed: int,
    unreadable_share: float,
) -> Recipe:
    """ViT-ResNAS, section 3.3, widening over the first fifth of the epochs."""
    return Recipe(
        name="quickstart-supernet",
        task=SUPERNET,
        space=space,
        data=data,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        groups=groups,
        widening_epochs=epochs // 5,
        learning_rate=1e-3,
        warmup_epochs=min(5, max(1, epochs // 5)),
        clip_gradient=1.0,
        evaluate_every=max(1, epochs // 4),
        augmentation=GREY if grey else COLOUR,
        mixing=Mixing(smoothing=0.1),
        unreadable_share=unreadable_share,
    )


def retrain_recipe(recipe: Recipe, *, architecture: str, supernet: str, epochs: int) -> Recipe:
    """The network that was found, from the weights it inherits, with a weight average."""
    return retraining(
        recipe,
        "quickstart-retrain",
        architecture,
        init="inherited",
        supernet=supernet,
        epochs=epochs,
        warmup_epochs=min(5, max(1, epochs // 5)),
        learning_rate=5e-4,
        average=0.995,
        evaluate_every=max(1, epochs // 4),
    )
