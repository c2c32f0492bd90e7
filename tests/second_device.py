"""A second device for machines without one: host memory that PyTorch takes for another device's.

Its tensors say that they are on `DEVICE`, hold their values in host memory, and refuse to meet a
tensor of the CPU, as a GPU's do. What runs there computes what the CPU computes, by every op's
reference; so a run can be compared with the CPU's, number by number, and proves that everything it
touched was where it has to be.

The device is "lazy", a name that PyTorch knows and nothing here uses: its backward pass runs in the
caller's thread and asks for no driver.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy", 0)

_aten = torch.ops.aten
# What CUDA lets meet tensors of the CPU: copies, and indices, which it fetches itself.
_COPIES = (_aten.copy_.default, _aten._to_copy.default)
_INDEXED = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


@contextlib.contextmanager
def second_device() -> Iterator[torch.device]:
    """Inside, `DEVICE` can be used; there is no bf16 on it."""
    fused, asked, made = (
        optimizer._get_fused_kernels_supported_devices,  # type: ignore[attr-defined]
        torch.is_autocast_enabled,
        torch.autocast,
    )
    lifted = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch, _Factories():
        # PyTorch asks lists of devices that this one is not on.
        patch.setattr(
            optimizer, "_get_fused_kernels_supported_devices", lambda: [*fused(), DEVICE.type]
        )
        patch.setattr(
            torch, "is_autocast_enabled", lambda kind="cuda": kind != DEVICE.type and asked(kind)
        )
        patch.setattr(torch, "autocast", lambda kind, **how: made(_host(kind), **how))
        generator = torch.Generator
        patch.setattr(torch, "Generator", lambda device="cpu": generator(_host(device)))
        # torch.tensor(..., device=DEVICE) then copies what it made on the CPU, which is seen here.
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield DEVICE
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)


class SecondDeviceTensor(Tensor):
    """A tensor on `DEVICE`; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> SecondDeviceTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"SecondDeviceTensor({self.held})"

    def tolist(self) -> Any:
        return self.held.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)  # saved, and loaded on the CPU

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, op: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(op, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Sees the ops that make tensors of nothing, too."""

    def __torch_dispatch__(
        self, op: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(op, args, kwargs or {})


def _run(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = any(isinstance(one, SecondDeviceTensor) for one in tensors)
    wanted = kwargs.get("device")
    to = here if wanted is None else torch.device(wanted).type == DEVICE.type
    if not (here or to):
        return op(*args, **kwargs)
    if here and op not in _COPIES:
        _refuse_to_mix(op, args, tensors)
    held = op(*tree_map(_held, args), **{name: _held(_host(one)) for name, one in kwargs.items()})
    if op is _aten.copy_.default:  # onto either device: what it returns is its target
        return args[0]
    if not to:
        return held
    with torch.inference_mode(False):  # PyTorch itself decides which tensors are of that mode
        out = tree_map(
            lambda one: SecondDeviceTensor(one) if isinstance(one, Tensor) else one, held
        )
    if torch.is_inference_mode_enabled():  # in which no views are kept track of
        return args[0] if op._schema.is_mutable else out
    return return_and_correct_aliasing(op, tuple(args), dict(kwargs), out)


def _refuse_to_mix(op: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """As CUDA does: a tensor of the CPU may come along if it is one number."""
    if op in _INDEXED and isinstance(args[0], SecondDeviceTensor):
        tensors = [one for one in (args[0], *args[2:]) if isinstance(one, Tensor)]
    if any(one.dim() and not isinstance(one, SecondDeviceTensor) for one in tensors):
        met = ", ".join(f"{one.device} {tuple(one.shape)}" for one in tensors)
        raise RuntimeError(f"{op} expects all tensors on the same device: {met}")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, SecondDeviceTensor) else value


def _host(value: Any) -> Any:
    """A CPU instead of `DEVICE`, be it a name or a device; anything else as it is."""
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == DEVICE.type else value
    return "cpu" if isinstance(value, str) and value.startswith(DEVICE.type) else value
