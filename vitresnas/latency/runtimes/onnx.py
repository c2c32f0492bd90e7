"""onnxruntime: the module exported to ONNX and run by ONNX Runtime, all graph optimisations on.

What ONNX Runtime makes of a network's graph are the same nodes by either exporter of torch, but for
reshapes that move nothing. Input and output stay where torch has them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vitresnas.errors import InputError
from vitresnas.latency.runtime import Call, Runtime
from vitresnas.models.to_onnx import onnx_missing, to_onnx
from vitresnas.space.operations import Operation

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, RunOptions

# Relative norm of the difference from eager: rounding passes, another computation does not.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}
# As onnx.TensorProto numbers them; numpy knows no bfloat16.
ELEMENT_TYPES = {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16}


def refuse(device: str) -> str | None:
    if missing := onnx_missing():
        return missing
    import onnxruntime

    if device == "cpu" or "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return None
    return (
        f"finds no CUDAExecutionProvider and the device is {device}: run "
        "`pip install onnxruntime-gpu` in place of onnxruntime"
    )


def versions(device: str) -> Mapping[str, str]:
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__}


def prepare(module: Callable[[Tensor], Any], x: Tensor, operation: Operation | None = None) -> Call:
    """Export, and hold the output against the module's own. Raises InputError."""
    what = str(operation) if operation else "this network"
    expected = module(x)
    try:
        session = _session(to_onnx(module, x), x.device)
        call = _bound(session, x.contiguous(), torch.empty_like(expected).contiguous())
        output = call()
    except Exception as error:  # two libraries with dozens of exceptions between them
        first_line = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"onnxruntime cannot run {what} in {x.dtype} ({first_line}): use another --dtype, or "
            "--runtime eager"
        ) from error
    off = float((output.float() - expected.float()).norm() / expected.float().norm())
    if not off <= TOLERANCES[x.dtype]:
        raise InputError(
            f"onnxruntime's result for {what} differs from eager's (by {off:.2g} of its norm, "
            f"{TOLERANCES[x.dtype]} is allowed), so its times would mean nothing: use another "
            "version of onnxruntime, or --runtime eager"
        )
    return call


def _session(model: bytes, device: torch.device) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Threads wait for the next node by spinning, and by default go on after the last one: there
    # are hundreds of sessions here, and they would spin while another one is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=[_provider(device)])


def _provider(device: torch.device) -> str | tuple[str, dict[str, str]]:
    if device.type == "cpu":
        return "CPUExecutionProvider"
    return "CUDAExecutionProvider", {
        "device_id": str(device.index or 0),
        "user_compute_stream": str(_stream(device).cuda_stream),
    }


@dataclass(frozen=True)
class _Bound:
    """A session that reads `x` and writes `output`, which both must outlive it."""

    session: InferenceSession
    binding: IOBinding
    options: RunOptions
    x: Tensor
    output: Tensor

    def __call__(self) -> Tensor:
        if self.x.is_cuda:
            # ONNX Runtime takes no default stream: its own waits for torch's, and torch's for it.
            ours, theirs = torch.cuda.current_stream(self.x.device), _stream(self.x.device)
            theirs.wait_stream(ours)
            self.session.run_with_iobinding(self.binding, self.options)
            ours.wait_stream(theirs)
        else:
            self.session.run_with_iobinding(self.binding, self.options)
        return self.output


def _bound(session: InferenceSession, x: Tensor, output: Tensor) -> _Bound:
    import onnxruntime

    binding, options = session.io_binding(), onnxruntime.RunOptions()
    if x.is_cuda:
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    for bind, (port,), tensor in (
        (binding.bind_input, session.get_inputs(), x),
        (binding.bind_output, session.get_outputs(), output),
    ):
        place, kind = tensor.device, ELEMENT_TYPES[tensor.dtype]
        bind(port.name, place.type, place.index or 0, kind, list(tensor.shape), tensor.data_ptr())
    return _Bound(session, binding, options, x, output)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


RUNTIME = Runtime("onnxruntime", prepare, refuse, versions)
