"""A module as an ONNX model: for ONNX Runtime to be timed here, and to take elsewhere.

torch has two exporters. The tracing one takes 10 to 60 ms a piece, and writes as many nodes as the
other where all shapes are fixed; the one by torch.export takes a second and more, and keeps a
dynamic batch without a hundred nodes that compute shapes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitresnas.errors import how_to_install

OPSET = 18  # LayerNormalization came with 17; below 18 torch's newer exporter has to convert down
INPUT, OUTPUT, BATCH = "images", "logits", "batch"
NEEDED = ("onnxruntime", "onnx", "onnxscript")


def onnx_missing() -> str | None:
    """Which packages are not here, and the command that brings them; None where all are."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return f"needs {', '.join(missing)}: {how_to_install('onnx')}"
    return None


def to_onnx(module: Callable[[Tensor], Any], x: Tensor, *, tracing: bool = True) -> bytes:
    """The module on inputs of the very shape of `x` as an ONNX model, weights inside."""
    model = module if isinstance(module, nn.Module) else _AsModule(module)
    with _exporting():
        inputs = (x.clone(),)
        if tracing:
            file: Any = io.BytesIO()  # it takes one, whatever its types say
            try:
                torch.onnx.export(model, inputs, file, dynamo=False, opset_version=OPSET)
                return file.getvalue()
            except TypeError:  # a torch without it does not know the argument
                pass
        return _proto(model, inputs).SerializeToString()


def program_to_onnx(program: torch.export.ExportedProgram, facts: Mapping[str, str]) -> bytes:
    """What torch.export made of a network, its batch dynamic, as an ONNX model with metadata."""
    import onnx

    with _exporting():
        model = _proto(program, input_names=[INPUT], output_names=[OUTPUT])
    for part in (*model.graph.node, *model.graph.value_info, model.graph):
        part.ClearField("metadata_props")  # names of modules, and paths on this machine
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
        value.ClearField("metadata_props")
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _proto(model: Any, inputs: tuple[Tensor, ...] = (), **names: Any) -> Any:
    """The onnx.ModelProto that torch's exporter by torch.export makes."""
    made = torch.onnx.export(model, inputs, opset_version=OPSET, verbose=False, **names)
    assert made is not None  # without a file to write to there is always a program
    return made.model_proto


@contextlib.contextmanager
def _exporting() -> Iterator[None]:
    """No gradients, no inference tensors, no warnings: tracing is deprecated, and fixes shapes."""
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


class _AsModule(nn.Module):
    def __init__(self, run: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Any:
        return self.run(x)
