"""A training step that one CUDA graph holds: forward, loss, backward, optimiser.

Eager PyTorch launches some three thousand kernels per super-network step, and at small batches the
launches cost more than the work. A graph costs one launch. It can serve every draw of sub-networks
because the fused path reads widths from device memory: between two replays a few hundred bytes of
architecture table change, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from vitresnas.errors import BackendError, InputError
from vitresnas.space.architecture import Architecture
from vitresnas.supernet.architecture_table import encode
from vitresnas.supernet.supernet import Supernet

WARM_UP = 3  # eager steps first: they compile kernels, load modules and make the optimiser's state

Loss = Callable[[Mapping[str, Tensor], Tensor], Tensor]


def reasons_not_to_capture(supernet: Supernet, optimizer: Optimizer) -> tuple[str, ...]:
    """Why no CUDA graph can hold a step of these; empty where one can."""
    found = []
    device = next(supernet.parameters()).device
    if device.type != "cuda":
        found.append(f"the super-network is on the {device.type}: move it to an NVIDIA GPU")
    if supernet.path != "fused":
        found.append(
            f'its path is "{supernet.path}", whose launches depend on the widths: use path="fused"'
        )
    if any(not group.get("capturable", False) for group in optimizer.param_groups):
        found.append("the optimiser reads its step count on the host: create it capturable=True")
    if torch.is_anomaly_enabled():
        found.append("anomaly detection looks at every gradient: switch it off")
    return tuple(found)


class CapturedStep:
    """`step(images, targets, architectures)` trains one step and returns the loss.

    Images, targets, architecture table and learning rates live in buffers of fixed address; a call
    copies into them and replays. The first calls run eagerly (they train, too); then the graph is
    captured. With `capture=False` every call runs eagerly on the same buffers: the same results,
    on any device.

    Raises BackendError, naming the reasons, where capture is impossible, and InputError for a
    batch that differs in shape, type or number of groups from the first.
    """

    def __init__(
        self,
        supernet: Supernet,
        optimizer: Optimizer,
        loss: Loss,
        *,
        autocast: torch.dtype | None = None,
        clip_gradient: float | None = None,
        capture: bool = True,
    ) -> None:
        if capture and (why := reasons_not_to_capture(supernet, optimizer)):
            raise BackendError(f"a CUDA graph cannot hold this training step: {'; '.join(why)}")
        self.supernet, self.optimizer, self.loss = supernet, optimizer, loss
        self.autocast, self.clip_gradient = autocast, clip_gradient
        self._capture = capture
        self._buffers: tuple[Tensor, Tensor, Tensor] | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._loss_value = torch.zeros(())
        self._rates: list[Tensor] = []
        self._eager_steps = 0

    @property
    def captured(self) -> bool:
        """Whether calls replay a graph by now."""
        return self._graph is not None

    def __call__(
        self, images_BCHW: Tensor, targets: Tensor, architectures: Sequence[Architecture]
    ) -> Tensor:
        """Train one step; the loss is a copy that later steps leave alone."""
        self.supernet.check(len(images_BCHW), architectures)
        self._fill(images_BCHW, targets, encode(architectures))
        if self._graph is not None:
            self._graph.replay()
        elif self._capture and self._eager_steps >= WARM_UP:
            self._record()
        else:
            self._warm_up()
        return self._loss_value.clone()

    def _fill(self, *batch: Tensor) -> None:
        """Copy a batch into the buffers, made of the first one."""
        device = next(self.supernet.parameters()).device
        if self._buffers is None:
            images, targets, table = (torch.empty_like(t, device=device) for t in batch)
            self._buffers = (images, targets, table)
            self._loss_value = torch.zeros((), device=device)
            self._rates = [
                torch.as_tensor(group["lr"], dtype=torch.float32, device=device).clone()
                for group in self.optimizer.param_groups
            ]
        for name, buffer, given in zip(
            ("images", "targets", "architecture table"), self._buffers, batch, strict=True
        ):
            if (buffer.shape, buffer.dtype) != (given.shape, given.dtype):
                raise InputError(
                    f"the step was begun with {name} {tuple(buffer.shape)} {buffer.dtype} and got "
                    f"{tuple(given.shape)} {given.dtype}: keep batch and groups, or make a new step"
                )
            buffer.copy_(given, non_blocking=True)
        if self._capture:
            # Schedules write plain numbers into the groups; the graph reads the tensors.
            for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
                if group["lr"] is not rate:
                    rate.fill_(float(group["lr"]))
                    group["lr"] = rate

    def _warm_up(self) -> None:
        """An eager step; beside the default stream where a capture will follow, as it must be."""
        self._eager_steps += 1
        if not self._capture:
            self._step()
            return
        with self._on_its_device():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._step()
            torch.cuda.current_stream().wait_stream(stream)

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)  # gradients then live in the graph's own memory
        with self._on_its_device(), torch.cuda.graph(graph, stream=torch.cuda.Stream()):
            self._step()
        self._graph = graph
        graph.replay()  # recording ran nothing

    def _on_its_device(self) -> torch.cuda.device:
        """A capture sees the work of the current device alone."""
        return torch.cuda.device(next(self.supernet.parameters()).device)

    def _step(self) -> None:
        assert self._buffers is not None
        images_BCHW, targets, table_LFG = self._buffers
        with torch.autocast(
            images_BCHW.device.type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            logits = self.supernet.forward_table(images_BCHW, table_LFG)
        loss = self.loss(logits, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip_gradient is not None:
            torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), self.clip_gradient)
        self.optimizer.step()
        self._loss_value.copy_(loss.detach())
