"""Networks of timm with their weights: teachers as they are, plain DeiT as a network of ours.

A plain DeiT (Touvron et al., arXiv:2012.12877) is a ViT-Res of one stage with a linear embedding,
so it can be everything that a network of ours can: timed, exported, a baseline of a search.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import VisionTransformer
from torch import Tensor, nn

from vitresnas.errors import InputError, MismatchError
from vitresnas.models.model_directory import find_model, load_model
from vitresnas.models.vit_res import ViTRes
from vitresnas.models.weights import load_into
from vitresnas.space.architecture import Architecture, Block, Embedding, Stage


def load_teacher(name: str | Path, classes: int, *, pretrained: bool = True) -> nn.Module:
    """A frozen network in evaluation mode, images (B, 3, side, side) to logits (B, classes).

    name: a network of timm with its pre-trained weights, or a model directory of ours.
    pretrained: False where only its speed matters, and nothing need be downloaded.
    Raises InputError where the weights cannot be had, MismatchError for other classes.
    """
    directory = find_model(name)
    model: nn.Module
    if directory.is_dir():
        model = load_model(directory)
    else:
        otherwise = "name a model directory as the teacher"
        model = timm_network(str(name), pretrained=pretrained, otherwise=otherwise)
    found = model.architecture.classes if isinstance(model, ViTRes) else model.num_classes
    if found != classes:
        raise MismatchError(
            f"the teacher {name} has {found} classes and the data has {classes}: choose a teacher "
            "that was trained on this data"
        )
    return model.requires_grad_(False).eval()


def timm_network(
    name: str,
    weights: str | Path | None = None,
    *,
    pretrained: bool = True,
    otherwise: str = "give a file with --weights",
) -> nn.Module:
    """A network of timm with pre-trained weights, from the network or from a file of its own.

    Raises InputError for an unknown name, and where weights are not to be had; it then tells what
    can be done `otherwise`.
    """
    source = name.partition(":")[0] in ("hf-hub", "hf_hub", "local-dir") and ":" in name
    if not source and not timm.is_model(name):
        near = timm.list_models(f"*{name.partition('_')[0]}*")[:3]
        raise InputError(
            f"timm has no network {name!r}: "
            + (f"it has {', '.join(near)}; " if near else "")
            + "timm.list_models() lists them"
        )
    with _one_sentence(name, weights, otherwise):
        if weights is not None:
            return timm.create_model(name, checkpoint_path=str(weights))
        return timm.create_model(name, pretrained=pretrained)


@contextlib.contextmanager
def _one_sentence(name: str, weights: str | Path | None, otherwise: str) -> Iterator[None]:
    """Whatever timm, the hub's client and torch raise about weights, in a sentence of ours."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # three libraries with dozens of exceptions between them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if weights is not None:
            raise InputError(
                f"cannot read {weights} as weights of {name} ({reason}): give the file that timm "
                "publishes for this network"
            ) from error
        raise InputError(
            f"cannot get the pre-trained weights of {name} ({reason}): run this once with network "
            f"access, and they stay in the cache; or {otherwise}"
        ) from error


def from_timm(network: nn.Module, name: str = "the network") -> ViTRes:
    """A plain ViT or DeiT of timm as a network of ours, in evaluation mode: the same logits.

    It reads images as all of ours do, normalised with ImageNet's mean and deviation: where timm's
    wants others (ViT: 0.5), the difference is folded into the patch embedding, which is linear.
    Raises InputError naming the first thing that a plain DeiT does not have, or has and this lacks.
    """
    if not isinstance(network, VisionTransformer):
        raise InputError(f"{name} is a {type(network).__name__}: give a plain DeiT or ViT of timm")
    theirs = network.state_dict()
    architecture = _architecture(network, theirs, name)
    with torch.device("meta"):
        model = ViTRes(architecture)
    scale_C11, shift_C11 = _from_ours(network, architecture.channels)
    load_into(model, _folded(_renamed(theirs), scale_C11, shift_C11), name)
    shape = (1, architecture.channels, architecture.image_size, architecture.image_size)
    images_BCHW = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_BK = network.eval()(images_BCHW * scale_C11 + shift_C11)
        found_BK = model.eval()(images_BCHW)
    assert isinstance(found_BK, Tensor)  # a pair is for training
    if not torch.allclose(found_BK, expected_BK, atol=1e-3, rtol=1e-3):
        raise InputError(
            f"{name} has the weights of a plain DeiT but computes something else with them: give a "
            "deit_*_patch16_* network"
        )
    return model


def _from_ours(network: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Images as we normalise them, times this and plus that, are images as `network` wants them.

    Both (C, 1, 1).
    """
    told: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    mean, std = told.get("mean") or (), told.get("std") or ()
    if len(mean) != channels or channels != len(IMAGENET_DEFAULT_MEAN):
        return torch.ones(channels, 1, 1), torch.zeros(channels, 1, 1)
    our_mean, our_std, their_mean, their_std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, mean, std)
    )
    return (our_std / their_std).float(), ((our_mean - their_mean) / their_std).float()


def _folded(state: dict[str, Tensor], scale_C11: Tensor, shift_C11: Tensor) -> dict[str, Tensor]:
    """The state whose patch embedding scales and shifts images by itself; it pads with nothing."""
    weight, bias = (state.get(f"embedding.projection.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None:
        return state  # named as missing by whoever loads it
    shifted = (weight.double() * shift_C11).sum((1, 2, 3)).to(bias)
    return state | {
        "embedding.projection.weight": weight * scale_C11,
        "embedding.projection.bias": bias + shifted,
    }


def _architecture(network: Any, state: dict[str, Tensor], name: str) -> Architecture:
    """Read off the shapes of the weights."""
    if "head.bias" not in state:
        raise InputError(f"{name} has no classifier: give a network that was trained with one")
    if unknown := [place for place in state if _ours(place) is None]:
        raise InputError(
            f"{name} has {unknown[0]}, which a plain DeiT lacks: give a deit_*_patch16_* network"
        )
    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    heads = network.blocks[0].attn.num_heads
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    block = Block(heads, hidden)
    return Architecture(
        image_size=network.patch_embed.img_size[0],
        patch_size=patch,
        embedding=Embedding("linear", 0),
        stages=(Stage(width, width // heads, (block,) * len(network.blocks)),),
        classes=state["head.bias"].shape[0],
        prefix_tokens=1 + ("dist_token" in state),
        channels=channels,
    )


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {place: _ours(place) for place in state}
    renamed = {str(names[place]): tensor for place, tensor in state.items()}
    prefix = [state[place] for place in ("cls_token", "dist_token") if place in state]
    return renamed | {"embedding.prefix_tokens": torch.cat(prefix, dim=1)}


def _ours(place: str) -> str | None:
    """Our name for timm's, None where a plain DeiT has no such weight."""
    if place in ("cls_token", "dist_token"):
        return "embedding.prefix_tokens"
    for theirs, ours in _PLACES.items():
        if place.startswith(theirs):
            return ours + place.removeprefix(theirs)
    if match := _IN_BLOCK.fullmatch(place):
        number, part, leaf = match.groups()
        part = {"attn.qkv": "attention.qkv", "attn.proj": "attention.projection"}.get(part, part)
        return f"stages.0.blocks.{number}.{part}.{leaf}"
    return None


_IN_BLOCK = re.compile(r"blocks\.(\d+)\.(norm1|norm2|mlp\.fc[12]|attn\.(?:qkv|proj))\.(\w+)")
_PLACES = {
    "pos_embed": "embedding.position_embedding",
    "patch_embed.proj.": "embedding.projection.",
    "norm.": "norm.",
    "head.": "head.",
    "head_dist.": "distillation_head.",
}
