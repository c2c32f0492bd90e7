"""The checkpoints of the authors of ViT-ResNAS, read by their names into networks of ours.

A file holds {"model": state, ...}, sometimes with "model_ema", which is preferred, and an
argparse.Namespace under "args". The architecture is not in it: the user gives the nested tuple.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitresnas.errors import FileFormatError, InputError
from vitresnas.models.vit_res import ViTRes
from vitresnas.models.weights import load_into, misfits
from vitresnas.space.architecture import Architecture


def import_official(
    path: str | Path, network_def: Sequence[Any], *, patch_size: int = 14
) -> ViTRes:
    """A network, in evaluation mode, that computes what the checkpoint at `path` computes.

    network_def: the authors' nested tuple, removed blocks included.
    Prefix tokens and the image side are read off the shapes. Raises InputError where there is no
    file, SpaceError for the tuple, FileFormatError naming every key that does not fit.
    """
    state = read_official(path)
    architecture = architecture_of(state, network_def, patch_size, where=str(path))
    with torch.device("meta"):
        model = ViTRes(architecture, patch_head="patch_head.weight" in state)
    names = dict(official_names(architecture))
    ours = {names[_place(name)] + _leaf(name): name for name in model.state_dict()}
    expected = {theirs: model.state_dict()[name] for theirs, name in ours.items()}
    problems = misfits(expected, state)
    if problems:
        raise FileFormatError(
            f"{path} does not fit the network definition: {'; '.join(problems)}: "
            "give the definition that this checkpoint was trained from"
        )
    load_into(model, {name: state[theirs] for theirs, name in ours.items()}, str(path))
    return model.eval()


def read_official(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint; the running average where the file holds one.

    Nothing is unpickled but tensors, containers and argparse.Namespace.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: check the path") from None
    except Exception as error:  # torch's reader of damaged files asserts, indexes and guesses
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it ends too early"
        raise FileFormatError(
            f"cannot read {path} as a checkpoint ({reason}): give a .pth file of the authors, "
            "which holds tensors, plain containers and argparse.Namespace alone"
        ) from None
    if not isinstance(checkpoint, dict):
        raise FileFormatError(f"{path} holds a {type(checkpoint).__name__}, expected a dictionary")
    state = checkpoint.get("model_ema") or checkpoint.get("model")
    if not isinstance(state, dict) or not state:
        found = ", ".join(map(str, list(checkpoint)[:6])) or "nothing"
        raise FileFormatError(
            f'{path} has no weights under "model" or "model_ema" (it holds {found}): '
            "give a checkpoint of the authors"
        )
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise FileFormatError(f"{path}: {name!r} is {value!r}, expected a tensor")
    return state


def architecture_of(
    state: dict[str, Tensor], network_def: Sequence[Any], patch_size: int, *, where: str
) -> Architecture:
    """The network of a definition with the prefix tokens and the image side of the weights."""
    for name in ("tokens", "pos_embed"):
        if name not in state or state[name].dim() != 3:
            found = tuple(state[name].shape) if name in state else "missing"
            raise FileFormatError(f"{where}: {name} is {found}, expected the shape (1, tokens, C)")
    prefix_tokens = state["tokens"].shape[1]
    patches = state["pos_embed"].shape[1] - prefix_tokens
    grid = math.isqrt(max(patches, 0))
    if grid < 1 or grid * grid != patches:
        raise FileFormatError(
            f"{where}: pos_embed has {patches} positions besides {prefix_tokens} prefix tokens, "
            "expected the square of a patch grid"
        )
    return Architecture.from_network_def(
        network_def,
        image_size=grid * patch_size,
        patch_size=patch_size,
        prefix_tokens=prefix_tokens,
    )


def official_names(architecture: Architecture) -> Iterator[tuple[str, str]]:
    """(our place, the authors' place) of everything that holds weights.

    Their `blocks.i` counts blocks and reductions together, removed blocks included and empty.
    """
    yield "embedding.prefix_tokens", "tokens"
    yield "embedding.position_embedding", "pos_embed"
    if architecture.embedding.kind == "linear":
        yield "embedding.projection", "patch_embed.proj"
    else:
        yield "embedding.projection", "patch_embed.conv_proj"
        for number in (1, 2, 3):
            yield f"embedding.trunk.conv{number}.0", f"patch_embed.conv{number}.conv"
            yield f"embedding.trunk.conv{number}.1", f"patch_embed.conv{number}.bn"
    index = 0
    for number, stage in enumerate(architecture.stages):
        if number:
            ours, theirs = f"stages.{number}.reduction", f"blocks.{index}"
            yield f"{ours}.position_embedding", f"{theirs}.pos_embed"
            yield f"{ours}.norm", f"{theirs}.norm"
            yield f"{ours}.convolution", f"{theirs}.patch_reduce"
            yield f"{ours}.prefix_projection", f"{theirs}.token_transform"
            index += 1
        kept = 0
        for block in stage.blocks:
            if block is not None:
                ours, theirs = f"stages.{number}.blocks.{kept}", f"blocks.{index}"
                yield f"{ours}.attention.qkv", f"{theirs}.attn.qkv"
                yield f"{ours}.attention.projection", f"{theirs}.attn.proj"
                for same in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                    yield f"{ours}.{same}", f"{theirs}.{same}"
                kept += 1
            index += 1
    yield "norm", "norm"
    yield "head", "cls_head"
    yield "distillation_head", "dst_head"
    yield "patch_head", "patch_head"


_LEAVES = (".weight", ".bias", ".running_mean", ".running_var", ".num_batches_tracked")


def _leaf(name: str) -> str:
    return next((leaf for leaf in _LEAVES if name.endswith(leaf)), "")


def _place(name: str) -> str:
    return name.removesuffix(_leaf(name))
