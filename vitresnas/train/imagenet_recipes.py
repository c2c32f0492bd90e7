"""Recipes for ImageNet, with the paper's numbers (ViT-ResNAS, arXiv 2109.00642).

The paper trains on eight GPUs of 128 images each. On fewer, --accumulation takes the same batches
in turns: `--dry-run` says what fits, and how long it takes on the device at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vitresnas.data.augmentation import Augmentation
from vitresnas.data.mixing import Mixing
from vitresnas.train.recipe import SUPERNET, Recipe, retraining


def supernet_tiny() -> Recipe:
    """The super-network of the `tiny` space on ImageNet; give the images with --data.

    Paper: ViT-ResNAS, section 3.3: 120 epochs, choices open over the first 30, batches of 1024 in
    16 groups of 64, AdamW at 5e-4 per 512 images, token-level mixing.
    Command: torchrun --nproc-per-node 8 -m vitresnas.train --recipe supernet-tiny --data DIR
    Cost: unknown (the paper's machine: 8 GPUs); --dry-run estimates it for yours.
    Expected: unknown; the paper reports networks trained again, not the super-network.
    """
    return Recipe(
        name="supernet-tiny",
        task=SUPERNET,
        space="tiny",
        data="",
        epochs=120,
        batch_size=1024,
        groups=16,
        widening_epochs=30,
        learning_rate=1e-3,
        final_learning_rate=1e-5,
        warmup_epochs=5,
        warmup_learning_rate=1e-6,
        weight_decay=0.05,
        drop_path=0.2,
        augmentation=Augmentation(
            flip=0.5, erase=0.25, crop=(0.08, 1.0), policy="rand-m9-mstd0.5-inc1", colour=0.4
        ),
        mixing=Mixing(mixup=0.8, cutmix=1.0, smoothing=0.1, tokens=True),
    )


def supernet_small() -> Recipe:
    """The super-network of the `small` space, in which the paper finds Small and Medium.

    Paper: ViT-ResNAS, section 3.3; as supernet-tiny.
    Command: torchrun --nproc-per-node 8 -m vitresnas.train --recipe supernet-small --data DIR
    Cost: unknown (the paper's machine: 8 GPUs); --dry-run estimates it for yours.
    Expected: unknown, as for supernet-tiny.
    """
    return replace(supernet_tiny(), name="supernet-small", space="small")


def retrain() -> Recipe:
    """One network from random weights, or inherited ones (--init inherited --supernet DIR).

    Paper: ViT-ResNAS, section 4: 300 epochs, weight average 0.99996, drop path 0.2; for Medium the
    paper uses 0.3: --drop-path 0.3.
    Command: torchrun --nproc-per-node 8 -m vitresnas.train --recipe retrain --architecture FILE
    --data DIR
    Cost: unknown; --dry-run estimates it.
    Expected: 80.8 % top-1 for the published Tiny (--architecture tiny), says the paper. Scores here
    are of an image's whole middle square, where most papers cut seven eighths of it out: the last
    tenths are not to be compared.
    """
    return retraining(supernet_tiny(), "retrain", "tiny", epochs=300, average=0.99996)


def finetune(image_size: int) -> Recipe:
    """A trained network at a higher resolution; the paper's three sizes have recipes.

    Paper: ViT-ResNAS, section 4.3: position embeddings are interpolated, training goes on. How long
    and how fast is here as for DeiT (arXiv 2012.12877): 30 epochs at a constant 5e-6 per 512
    images, hardly any weight decay; labels of images, not of tokens.
    Command: vitresnas train --recipe finetune-SIDE --architecture MODEL_DIR --data DIR
    Cost and accuracy: unknown; --dry-run estimates the cost.
    """
    base = retrain()
    return replace(
        base,
        name=f"finetune-{image_size}",
        init="trained",
        image_size=image_size,
        epochs=30,
        batch_size=512,
        learning_rate=5e-6,
        final_learning_rate=5e-6,
        warmup_epochs=0,
        weight_decay=1e-8,
        evaluate_every=5,
        mixing=replace(base.mixing, tokens=False),
    )


def distill() -> Recipe:
    """One network with a distillation token that learns from a teacher of timm.

    Paper: ViT-ResNAS, section 4, after DeiT: half the loss on the labels, half on the first choice
    of a RegNetY-16GF, instead of labels for tokens. --distillation soft learns its distribution.
    Command: torchrun --nproc-per-node 8 -m vitresnas.train --recipe distill --architecture FILE
    --data DIR
    Cost and accuracy: unknown; --dry-run estimates the cost, the teacher's part included.
    """
    base = retrain()
    return replace(
        base,
        name="distill",
        teacher="regnety_160.deit_in1k",
        distillation="hard",
        mixing=replace(base.mixing, tokens=False),
    )


def _at(image_size: int) -> Callable[[], Recipe]:
    def recipe() -> Recipe:
        return finetune(image_size)

    recipe.__doc__ = (finetune.__doc__ or "").replace("SIDE", str(image_size))
    return recipe


IMAGENET_RECIPES: dict[str, Callable[[], Recipe]] = {
    "supernet-tiny": supernet_tiny,
    "supernet-small": supernet_small,
    "retrain": retrain,
    "finetune-280": _at(280),
    "finetune-336": _at(336),
    "finetune-392": _at(392),
    "distill": distill,
}
