"""Recipes by name. A variant calls another recipe and changes fields; the command line selects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vitresnas.data.augmentation import Augmentation
from vitresnas.data.mixing import Mixing
from vitresnas.errors import InputError
from vitresnas.space import SearchSpace, load_space
from vitresnas.space.presets import like
from vitresnas.train.imagenet_recipes import IMAGENET_RECIPES
from vitresnas.train.recipe import SUPERNET, Recipe, retraining


def digits_supernet() -> Recipe:
    """The super-network of the `digits` space on scikit-learn's digits.

    Paper: ViT-ResNAS (arXiv 2109.00642), section 3.3, shrunk to 1,137 images of 16 pixels.
    Command: vitresnas train --recipe digits-supernet --out DIR
    Cost: one minute on 2 CPU cores (57 CPU seconds, all told).
    Expected: networks of 12 to 24 M MACs reach 0.986 to 0.993 of the hold-out on average over 30 of
    them (seeds 0, 1, 2), the likeliest 0.994 to 0.997 of the test split.
    """
    return Recipe(
        name="digits-supernet",
        task=SUPERNET,
        space="digits",
        epochs=10,
        batch_size=32,
        groups=2,
        widening_epochs=2,
        learning_rate=1e-3,
        warmup_epochs=2,
        clip_gradient=1.0,
        evaluate_every=5,
        augmentation=Augmentation(shift=0.08, scale=0.1, rotate=8.0),
        mixing=Mixing(smoothing=0.1),
    )


def cifar_supernet() -> Recipe:
    """The super-network of the `cifar` space on images of 32 pixels; give them with --data.

    Paper: ViT-ResNAS, section 3.3: 120 epochs, widening over the first 30, AdamW at 5e-4 per 512
    images. Batch 1024 in 16 groups of 64 is what the paper's eight GPUs see together.
    Command: vitresnas train --recipe cifar-supernet --data DIR --out DIR
    Cost and accuracy: not measured yet; 5.4 M images at 0.38 G MACs each on average, for a GPU.
    """
    return Recipe(
        name="cifar-supernet",
        task=SUPERNET,
        space="cifar",
        data="",
        epochs=120,
        batch_size=1024,
        groups=16,
        widening_epochs=30,
        learning_rate=1e-3,
        warmup_epochs=5,
        drop_path=0.1,
        clip_gradient=1.0,
        augmentation=Augmentation(shift=0.125, flip=0.5, erase=0.25, policy="rand-m9-mstd0.5-inc1"),
        mixing=Mixing(mixup=0.8, cutmix=1.0, smoothing=0.1),
    )


def cifar_nano_supernet() -> Recipe:
    """The super-network of the small `cifar-nano` space, sized for a CPU; give images with --data.

    Paper: ViT-ResNAS, section 3.3, with cheap augmentation on batches and weaker regularisation.
    Command: vitresnas train --recipe cifar-nano-supernet --data DIR --out DIR
    Cost: 2.5 hours on 2 CPU cores, says --dry-run for CIFAR-10. Accuracy: not measured yet.
    """
    return replace(
        cifar_supernet(),
        name="cifar-nano-supernet",
        space="cifar-nano",
        epochs=40,
        batch_size=128,
        groups=4,
        widening_epochs=10,
        drop_path=0.0,
        evaluate_every=2,
        augmentation=Augmentation(shift=0.125, flip=0.5),
        mixing=Mixing(smoothing=0.1),
    )


def cifar_nano_quick_supernet() -> Recipe:
    """`cifar-nano-supernet` in a fifth of its epochs: enough to rank networks, not to use them.

    Paper: ViT-ResNAS, section 3.3, cut short: the super-network behind bench/replay. Small batches,
    since a short schedule needs its steps.
    Command: vitresnas train --recipe cifar-nano-quick-supernet --data DIR --out DIR
    Cost: half an hour of one CPU core for CIFAR-10, says --dry-run.
    """
    return replace(
        cifar_nano_supernet(),
        name="cifar-nano-quick-supernet",
        epochs=8,
        batch_size=64,
        groups=2,
        widening_epochs=2,
        warmup_epochs=1,
        dtype="fp32",
        path="fused",
    )


def digits_retrain() -> Recipe:
    """One network of the `digits` space, trained on its own; give it with --architecture.

    Paper: ViT-ResNAS, section 4: the recipe of the super-network with a weight average.
    Command: vitresnas train --recipe digits-retrain --architecture FILE --out DIR
    Cost: one minute on 2 CPU cores for the smallest network (5 M MACs), three for one of 18 M.
    Expected: 0.997 of the test split for the smallest, from random weights (seed 0).
    """
    base = digits_supernet()
    return retraining(base, "digits-retrain", "digits:largest", epochs=40, average=0.995)


def cifar_retrain() -> Recipe:
    """One network of the `cifar` space, trained on its own, as the paper does with its winners.

    Paper: ViT-ResNAS, section 4: 300 epochs, drop path 0.2, weight average 0.99996 over 375,000
    steps (here 0.9995 over 13,000).
    Command: vitresnas train --recipe cifar-retrain --architecture FILE --data DIR --out DIR
    Cost and accuracy: not measured yet.
    """
    return retraining(
        cifar_supernet(),
        "cifar-retrain",
        "cifar:largest",
        epochs=300,
        drop_path=0.2,
        average=0.9995,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits-supernet": digits_supernet,
    "cifar-nano-supernet": cifar_nano_supernet,
    "cifar-nano-quick-supernet": cifar_nano_quick_supernet,
    "cifar-supernet": cifar_supernet,
    "digits-retrain": digits_retrain,
    "cifar-retrain": cifar_retrain,
    **IMAGENET_RECIPES,
}


@dataclass(frozen=True)
class Pair:
    """The names of two recipes: a space's super-network, and a network of it on its own."""

    supernet: str
    retrain: str


OF_SPACE = {
    "digits": Pair("digits-supernet", "digits-retrain"),
    "cifar-nano": Pair("cifar-nano-supernet", "cifar-retrain"),
    "cifar": Pair("cifar-supernet", "cifar-retrain"),
    "tiny": Pair("supernet-tiny", "retrain"),
    "small": Pair("supernet-small", "retrain"),
}


def recipes_for(space: SearchSpace) -> Pair:
    """The recipes of a space by name; for one of the user's own, those for images of its size."""
    return OF_SPACE[space.name if space.name in OF_SPACE else like(space.image_size)]


def supernet_recipe(space: str, data: str | None) -> Recipe:
    """The recipe of a space's super-network. Raises InputError where none is made for it, or where
    it needs images that are not given."""
    found = load_space(space)
    recipe = load_recipe(recipes_for(found).supernet)
    if found.name not in OF_SPACE:
        raise InputError(
            f"no recipe is made for the space {space}, so its super-network must be given: train "
            f"one with `python -m vitresnas.train --recipe {recipe.name} --space {space} "
            f"--data {data or 'digits'} --out DIR` and add --supernet DIR"
        )
    if not (data or recipe.data):
        raise InputError(
            f"no images are given and the super-network of the space {space} would have to be "
            f"trained by {recipe.name}, which brings none: give --data"
        )
    return replace(recipe, space=space, data=data or recipe.data)


def load_recipe(name: str) -> Recipe:
    """A recipe by name. Raises InputError listing the names."""
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}: use {', '.join(RECIPES)}")
    return RECIPES[name]()
