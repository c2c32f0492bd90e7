"""Weights to and from safetensors, and a state that must fit a network key by key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vitresnas.errors import FileFormatError

State = Mapping[str, Tensor]


def to_bytes(state: State) -> bytes:
    """A state as one safetensors document.

    Bytes rather than safetensors' own file writer: a full disk is then an ordinary OSError.
    """
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_of(state: State) -> str:
    """The SHA-256 of names and values, wherever the tensors lie and whatever file held them."""
    found = hashlib.sha256()
    for name, tensor in state.items():
        found.update(name.encode() + tensor.cpu().numpy().tobytes())
    return found.hexdigest()


def from_bytes(content: bytes, where: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors document, on the CPU. Raises FileFormatError."""
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise FileFormatError(
            f"{where} is not a safetensors file ({error}): it is damaged, write it again"
        ) from None


def load_into(model: nn.Module, state: State, where: str) -> None:
    """Make `state` the weights of `model`, which may be built on the meta device.

    Raises FileFormatError naming what is missing, unexpected or of the wrong shape.
    """
    problems = misfits(model.state_dict(), state)
    if problems:
        raise FileFormatError(f"{where} does not fit the architecture: {'; '.join(problems)}")
    expected = model.state_dict()
    cast = {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}
    model.load_state_dict(cast, assign=True)


def misfits(expected: State, found: State) -> list[str]:
    """Every difference in names and shapes, in a stable order."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unexpected" for name in found if name not in expected]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    return problems
