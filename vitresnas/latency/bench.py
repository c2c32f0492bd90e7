"""The real modules of a space under one condition, ready to be called by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vitresnas.errors import InputError
from vitresnas.latency.compared import ExistingModel
from vitresnas.latency.condition import Condition
from vitresnas.latency.existing import guests
from vitresnas.latency.measure import DTYPES, prepare_guest
from vitresnas.latency.measure_memory import measure_peak
from vitresnas.latency.runtime import Call, find_runtime
from vitresnas.latency.timer import timer_for
from vitresnas.latency.weights import SharedWeights
from vitresnas.models import create_model
from vitresnas.models.pieces import build_piece, piece_input_shape
from vitresnas.progress import Step
from vitresnas.space.architecture import Architecture
from vitresnas.space.operations import Operation, parameters
from vitresnas.space.search_space import SearchSpace


def _silent(fraction: float, detail: str) -> None:
    pass


class Bench:
    """Builds and calls pieces and networks; inputs stay on the device and are shared by shape."""

    def __init__(self, space: SearchSpace, condition: Condition, device: torch.device) -> None:
        self._condition, self.device = condition, device
        self._dtype = DTYPES[condition.dtype]
        self._prepare = find_runtime(condition.runtime).prepare
        self._weights = SharedWeights(parameters(space.largest), device, self._dtype)
        self._inputs: dict[tuple[int, ...], Tensor] = {}
        self._timer = timer_for(device)
        self.host_is_device = device.type == "cpu"

    def pieces(self, operations: Sequence[Operation], step: Step = _silent) -> dict[str, Call]:
        """Calls by the name of the operation, each made once already."""
        return _made(
            {str(operation): partial(self._piece, operation) for operation in operations}, step
        )

    def networks(
        self, architectures: Sequence[Architecture], step: Step = _silent
    ) -> dict[str, Call]:
        """Calls by the id of the architecture, each made once already."""
        return _made(
            {network.id: partial(self._network, network) for network in architectures}, step
        )

    def existing(self, models: Sequence[ExistingModel]) -> dict[str, Call]:
        """Calls by the label of the model, each made once already."""
        condition = self._condition
        return {
            label: prepare_guest(label, guest, condition.dtype, condition.runtime)
            for label, guest in guests(models, condition.batch_size, str(self.device)).items()
        }

    def peak_memory(self, architecture: Architecture) -> tuple[int, str]:
        """Bytes that one forward pass needs, and how they were counted."""
        return measure_peak(*self._module(architecture))

    def time_piece(self, call: Call) -> tuple[float, float]:
        """(host, device) milliseconds of one call, right after one that is not counted.

        Between two visits the log is written and the thread pool falls asleep; in a network it is
        awake. What cold weights add in a network is proportional, and the calibration's to find.
        """
        call()
        return self._timer.piece(call)

    def time_anchor(self, call: Call) -> tuple[float, float]:
        """(host, device) milliseconds of one call, whatever went before."""
        return self._timer.piece(call)

    def time_network(self, call: Call) -> tuple[float, float]:
        """The same for a whole network, as a user runs it: one batch after the other."""
        call()
        return self._timer.network(call)

    def _piece(self, operation: Operation) -> Call:
        module = self._weights.build(lambda: build_piece(operation))
        x = self._input(piece_input_shape(operation, self._condition.batch_size))
        return self._first_call(lambda: self._prepare(module, x, operation), str(operation))

    def _module(self, architecture: Architecture) -> tuple[nn.Module, Tensor]:
        """A whole network and what it reads."""
        module = self._weights.build(lambda: create_model(architecture))
        side = architecture.image_size
        shape = (self._condition.batch_size, architecture.channels, side, side)
        return module, self._input(shape)

    def _network(self, architecture: Architecture) -> Call:
        module, x = self._module(architecture)
        return self._first_call(lambda: self._prepare(module, x, None), "a whole network")

    def _input(self, shape: tuple[int, ...]) -> Tensor:
        if shape not in self._inputs:
            values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            self._inputs[shape] = values.to(self.device, self._dtype)
        return self._inputs[shape]

    def _first_call(self, make: Callable[[], Call], name: str) -> Call:
        """Run once: kernels are chosen and memory is got; what cannot run is found out now."""
        try:
            call = make()
            call()
        except torch.OutOfMemoryError:
            raise InputError(
                f"no memory left on {self._condition.device} for {name} at batch size "
                f"{self._condition.batch_size}: use a smaller --batch-size"
            ) from None
        except (RuntimeError, NotImplementedError) as error:
            first_line = str(error).strip().split("\n", 1)[0]
            raise InputError(
                f"{name} cannot run in {self._condition.dtype} on {self._condition.device} "
                f"({first_line}): use another --dtype or --device"
            ) from error
        return call


def _made(makers: Mapping[str, Callable[[], Call]], step: Step) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for name, make in makers.items():
        calls[name] = make()
        step(len(calls) / len(makers), f"{len(calls)} of {len(makers)}")
    return calls
