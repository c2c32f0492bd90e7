"""Super-network directories: search_space.json + model.safetensors + supernet_card.json."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitresnas.errors import FileFormatError, InputError, MismatchError
from vitresnas.files import JsonObject, atomic_path, read_json, to_text
from vitresnas.models.weights import from_bytes, load_into, to_bytes
from vitresnas.space.search_space import KIND as SPACE_KIND
from vitresnas.space.search_space import SearchSpace
from vitresnas.supernet.supernet import Supernet

SPACE, WEIGHTS, CARD = "search_space.json", "model.safetensors", "supernet_card.json"


def save_supernet(supernet: Supernet, path: str | Path, card: Mapping[str, Any]) -> None:
    """Write a super-network directory; the space comes last and makes it complete.

    All files are staged before the first is put in place, so a full disk (StorageError) leaves an
    earlier super-network as it was.

    card: how it was trained, as a JSON object (recipe, data, seed, measured scores).
    """
    directory = Path(path)
    contents = {
        SPACE: to_text(SPACE_KIND, supernet.space.to_json()).encode(),
        CARD: to_text("supernet_card", card).encode(),
        WEIGHTS: to_bytes(supernet.network.state_dict()),
    }
    # The stack unwinds from its end: weights, card, and the space last.
    with contextlib.ExitStack() as stack:
        for name, content in contents.items():
            stack.enter_context(atomic_path(directory / name)).write_bytes(content)


def load_supernet(
    path: str | Path, *, space: SearchSpace | None = None, device: str | torch.device = "cpu"
) -> Supernet:
    """Read a super-network directory, in evaluation mode.

    Raises InputError where there is none, MismatchError where its space is not `space`,
    FileFormatError for damaged files.
    """
    found = read_space(path)
    if space is not None:
        refuse_other_space(path, space)
    weights = Path(path) / WEIGHTS
    try:
        state = from_bytes(weights.read_bytes(), weights)
    except OSError as error:
        raise FileFormatError(
            f"cannot read {weights} ({error.strerror}): train the super-network again"
        ) from None
    with torch.device("meta"):  # no memory and no random draws for weights that are at hand
        supernet = Supernet(found, patch_head="patch_head.weight" in state)
    load_into(supernet.network, state, str(weights))
    return supernet.to(device).eval()


def read_space(path: str | Path) -> SearchSpace:
    """The space of a super-network. Raises InputError where there is none, FileFormatError."""
    if not (Path(path) / SPACE).exists():
        raise InputError(
            f"{path} holds no finished super-network (no {SPACE}): train one with "
            "`vitresnas train --recipe digits-supernet --out DIR`, or repeat the command that "
            "was interrupted"
        )
    return SearchSpace.load(Path(path) / SPACE)


def read_card(path: str | Path) -> JsonObject:
    """How a super-network was trained. Raises FileFormatError."""
    return read_json(Path(path) / CARD, "supernet_card")


def refuse_other_space(path: str | Path, space: SearchSpace) -> None:
    """Raise MismatchError where a super-network is not of this space."""
    found = read_space(path)
    if found.id != space.id:
        raise MismatchError(
            f"the super-network in {path} is of the space {found.name} ({found.id}, "
            f"{found.image_size} pixels, {found.classes} classes), not {space.name} ({space.id}, "
            f"{space.image_size} pixels, {space.classes} classes): give one of that space"
        )


def refuse_other_data(path: str | Path, name: str, identifier: str) -> None:
    """Raise MismatchError where a super-network was trained on something else than the data of this
    name and id."""
    trained_on = read_card(path).get("data")
    if isinstance(trained_on, dict) and trained_on.get("id") != identifier:
        raise MismatchError(
            f"the super-network in {path} was trained on other images or another split "
            f"({trained_on.get('name')}, {trained_on.get('id')}) than {name} ({identifier}), so "
            "it may have seen the hold-out that scores it: give --data the images it was trained "
            "on, or train one on these"
        )
