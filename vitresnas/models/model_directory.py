"""Model directories: architecture.json + model.safetensors + model_card.json.

The card is written last and holds the digest of the weights and the id of the architecture, so a
directory is either complete or recognised as unfinished. README.md and config.json say the same to
the Hugging Face hub and to timm; nothing here reads them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitresnas.errors import FileFormatError, InputError
from vitresnas.files import (
    JsonObject,
    atomic_path,
    atomic_write,
    read_json,
    to_text,
    write_json,
)
from vitresnas.models.hub_files import CONFIG, README, hub_config, hub_readme
from vitresnas.models.vit_res import ViTRes
from vitresnas.models.weights import from_bytes, load_into, misfits, sha256, to_bytes
from vitresnas.space.architecture import KIND as ARCHITECTURE_KIND
from vitresnas.space.architecture import Architecture
from vitresnas.space.operations import macs, parameters

ARCHITECTURE, WEIGHTS, CARD = "architecture.json", "model.safetensors", "model_card.json"
CARD_KIND = "model_card"
HUB_FILES = (README, CONFIG, ARCHITECTURE, WEIGHTS, CARD)  # all of a model, as others download it
OURS = ("architecture_id", "macs", "parameters", "weights_sha256")


def save_model(model: ViTRes, path: str | Path, card: Mapping[str, Any]) -> None:
    """Write a model directory; one that is there already is replaced.

    card: where the weights come from, as a JSON object; the fields `OURS` are added to it.
    All files are staged before the first is put in place, so a full disk (StorageError)
    leaves an earlier model as it was. Raises InputError for weights that no network of this
    architecture has: of one that was wrapped, pruned, or lost its classifier.
    """
    for name in OURS:
        if name in card:
            raise ValueError(f"the card field {name!r} is written by save_model")
    directory, architecture, state = Path(path), model.architecture, model.state_dict()
    with torch.device("meta"):
        expected = ViTRes(architecture, patch_head=model.patch_head is not None).state_dict()
    if problems := misfits(expected, state):
        raise InputError(
            f"these are not the weights of the network {architecture.id}, {problems[0]}: save the "
            "network itself, with its classifier and before torch.compile or any other wrapper"
        )
    weights = to_bytes(state)
    facts = {
        "architecture_id": architecture.id,
        "macs": macs(architecture),
        "parameters": parameters(architecture, patch_head=model.patch_head is not None),
        "weights_sha256": sha256(weights),
    }
    card = {**card, **facts}
    contents = {
        CARD: to_text(CARD_KIND, card).encode(),
        README: hub_readme(architecture, card).encode(),
        CONFIG: hub_config(architecture, card, model.patch_head is not None).encode(),
        ARCHITECTURE: to_text(ARCHITECTURE_KIND, architecture.to_json()).encode(),
        WEIGHTS: weights,
    }
    # The stack unwinds from its end: weights, architecture, what others read, and the card last.
    with contextlib.ExitStack() as stack:
        for name, content in contents.items():
            stack.enter_context(atomic_path(directory / name)).write_bytes(content)


def load_model(path: str | Path, device: str | torch.device = "cpu") -> ViTRes:
    """Read a model directory, in evaluation mode.

    Raises InputError where there is none, FileFormatError for damaged or foreign files.
    """
    directory = Path(path)
    card = read_card(directory)
    architecture = Architecture.load(directory / ARCHITECTURE)
    if card.get("architecture_id") != architecture.id:
        raise FileFormatError(
            f"{directory / ARCHITECTURE} is the network {architecture.id}, but the card is of "
            f"{card.get('architecture_id')}: the directory mixes two models, write it again"
        )
    try:
        content = (directory / WEIGHTS).read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {directory / WEIGHTS} ({error.strerror}): write the model again"
        ) from None
    if sha256(content) != card.get("weights_sha256"):
        raise FileFormatError(
            f"{directory / WEIGHTS} is not the file that its card describes (its SHA-256 differs): "
            "it was damaged or replaced, write the model again"
        )
    state = from_bytes(content, directory / WEIGHTS)
    with torch.device("meta"):  # no memory and no random draws for weights that are at hand
        model = ViTRes(architecture, patch_head="patch_head.weight" in state)
    load_into(model, state, str(directory / WEIGHTS))
    return model.to(device).eval()


def read_card(path: str | Path) -> JsonObject:
    """The card of a model directory. Raises InputError where there is no finished model."""
    directory = Path(path)
    if not (directory / CARD).is_file():
        raise InputError(
            f"{directory} holds no finished model (no {CARD}): give a model directory, "
            "or repeat the command that was to write it"
        )
    return read_json(directory / CARD, CARD_KIND)


def update_card(path: str | Path, changes: Mapping[str, Any]) -> None:
    """Replace or add fields of a card, such as a new verdict; its model stays what it is."""
    for name in OURS:
        if name in changes:
            raise ValueError(f"the card field {name!r} belongs to save_model")
    directory, card = Path(path), {**read_card(path), **changes}
    architecture = Architecture.load(directory / ARCHITECTURE)
    atomic_write(directory / README, hub_readme(architecture, card).encode())
    write_json(directory / CARD, CARD_KIND, card)


def write_hub_files(path: str | Path) -> None:
    """Make README.md and config.json anew, once the weights are found to be those of the card."""
    directory, card, model = Path(path), read_card(path), load_model(path)
    patch_head = model.patch_head is not None
    atomic_write(directory / README, hub_readme(model.architecture, card).encode())
    atomic_write(directory / CONFIG, hub_config(model.architecture, card, patch_head).encode())


def find_model(directory: str | Path) -> Path:
    """The model directory itself, or the one inside a search's folder."""
    inside = Path(directory) / "model"
    return inside if (inside / CARD).is_file() else Path(directory)
