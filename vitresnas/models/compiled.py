"""torch.compile for networks, one priced piece at a time.

What is compiled is what the latency table prices, so that compiled pieces add up to the compiled
network, and thousands of networks need no compiler beyond the few hundred pieces of their space.
What this gives away: a residual addition does not fuse with the LayerNorm of the next piece.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitresnas.errors import InputError
from vitresnas.models.pieces import pieces_of
from vitresnas.models.vit_res import ViTRes, check_image
from vitresnas.space.operations import Operation, operations

Runner = Callable[[Callable[[Tensor], Any], Tensor], Any]


def compile_pieces(model: ViTRes) -> Callable[[Tensor], Tensor]:
    """A function of images that runs `model`, in evaluation mode, piece by compiled piece.

    Compilation happens in the first call, and again for another batch size or type. The function
    reads the weights of the model, not a copy.
    """
    if model.training:
        raise InputError(
            "the network is in training mode: call model.eval() before compile_pieces(model)"
        )
    names = operations(model.architecture)
    steps = [
        (compiled_piece(name), piece) for name, piece in zip(names, pieces_of(model), strict=True)
    ]

    def run(images_BCHW: Tensor) -> Tensor:
        check_image(images_BCHW, model.architecture)
        x = images_BCHW
        for runner, piece in steps:
            x = runner(piece, x)
        return x

    return run


@functools.cache
def compiled_piece(operation: Operation) -> Runner:
    """The one compiled runner of an operation, for every module that is it."""
    return compiled_runner(operation.kind)


def compiled_runner(name: str) -> Runner:
    """A compiled `run(module, x)` for modules that compute the same on the same shapes.

    Dynamo keeps what it compiled with a function's code, and tries one entry after the other in
    every call. With code of its own a runner meets its own shapes alone, however many a process
    compiles.
    """
    code = _run.__code__.replace(co_name=f"run_{name}")
    return torch.compile(types.FunctionType(code, globals()), fullgraph=True, dynamic=False)


def _run(module: Callable[[Tensor], Any], x: Tensor) -> Any:
    return module(x)
