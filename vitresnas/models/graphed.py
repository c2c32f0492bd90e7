"""A network recorded as a CUDA graph: one launch per batch, for images of one shape.

B images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitresnas.errors import InputError


class GraphedNetwork:
    """`network`, recorded on images like `images_BCHW`; calling it replays the recording.

    network: a module in evaluation mode on a CUDA device, such as `optimise_for_inference` returns;
        it must do the same work for all images. Its weights stay where they are: changing them in
        place changes what is replayed.

    Raises InputError for images elsewhere and for networks that cannot be recorded.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], images_BCHW: Tensor) -> None:
        if not images_BCHW.is_cuda:
            raise InputError(
                f"a CUDA graph records work on an NVIDIA GPU and the images are on "
                f"{images_BCHW.device}: move network and images there, or run the network directly"
            )
        self._images_BCHW = images_BCHW.clone()
        self._graph, self._logits_BK = record(network, self._images_BCHW)

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K), in memory of their own."""
        if _kind(images_BCHW) != _kind(self._images_BCHW):
            raise InputError(
                f"the images are {_kind(images_BCHW)} and the network was recorded for "
                f"{_kind(self._images_BCHW)}: pad the batch, or record another GraphedNetwork"
            )
        self._images_BCHW.copy_(images_BCHW)
        self._graph.replay()
        return self._logits_BK.clone()


@torch.no_grad()
def record(module: Callable[[Tensor], Any], x: Tensor) -> tuple[torch.cuda.CUDAGraph, Any]:
    """One forward pass as a graph that reads `x` and writes the output, both where they are now."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.device(x.device):  # a capture sees the work of the current device alone
            main, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(main)
            with torch.cuda.stream(side):  # lazy initialisation must not be recorded
                for _ in range(3):
                    module(x)
            main.wait_stream(side)
            with torch.cuda.graph(graph, stream=side):
                output = module(x)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        first_line = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"this network cannot be recorded as a CUDA graph ({first_line}): run it directly"
        ) from error
    return graph, output


def _kind(images_BCHW: Tensor) -> str:
    return f"{tuple(images_BCHW.shape)} {images_BCHW.dtype} on {images_BCHW.device}"
