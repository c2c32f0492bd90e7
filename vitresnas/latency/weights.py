"""One buffer of weights for many modules that never run at the same time.

Sixty networks side by side would need gigabytes at 224 pixels, and would evict each other's weights
from the caches where a network that runs alone finds its own. Time does not depend on the values,
so all of them read the same memory; only shapes differ.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

_ALIGNMENT = 64  # elements: at least a cache line, as torch's own allocator gives
_STD = 0.02


class SharedWeights:
    """Builds modules whose parameters are views of one buffer of at least `elements` numbers."""

    def __init__(self, elements: int, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._cursor = 0
        self._draw(elements)

    def build(self, make: Callable[[], nn.Module]) -> nn.Module:
        """The module in evaluation mode; `make` runs without allocating or drawing weights.

        Successive modules take successive stretches of the buffer, beginning again at its end: two
        pieces that run after each other read different memory, as they do in a network.
        """
        with torch.device("meta"):
            module = make().eval()
        needed = sum(_padded(parameter.numel()) for parameter in module.parameters())
        if needed > self._buffer.numel():
            self._draw(needed)  # modules built earlier keep the buffer they have
        if self._cursor + needed > self._buffer.numel():
            self._cursor = 0
        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                end = self._cursor + parameter.numel()
                view = self._buffer[self._cursor : end].view(parameter.shape)
                part.register_parameter(name, nn.Parameter(view, requires_grad=False))
                self._cursor += _padded(parameter.numel())
            for name, buffer in part.named_buffers(recurse=False):
                # Running statistics: ones are a mean and a variance that keep numbers ordinary.
                dtype = self._dtype if buffer.is_floating_point() else buffer.dtype
                setattr(part, name, torch.ones(buffer.shape, device=self._device, dtype=dtype))
        return module

    @torch.inference_mode(False)  # or code compiled for one buffer would not fit the next
    def _draw(self, elements: int) -> None:
        values = torch.randn(elements, generator=torch.Generator().manual_seed(0)) * _STD
        self._buffer = values.to(self._device, self._dtype)
        self._cursor = 0


def _padded(elements: int) -> int:
    return -(-elements // _ALIGNMENT) * _ALIGNMENT
