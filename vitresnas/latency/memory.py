"""Peak memory of one forward pass: predicted from the pieces, and how far measurements are off.

Weights, the images, and the largest set of activations that is alive at once while the modules of
models/ run in eager inference: results, residual inputs, what Python frames still hold (each
stage's output, for users of features). Scratch space of libraries (cuDNN, cuBLAS, oneDNN) is not in
it; the published error says how much that was. No torch in here.

N tokens, C width, I inner width of attention, F hidden units, K output width, P prefix tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject
from vitresnas.latency.statistics import percentage_errors
from vitresnas.space.architecture import Architecture
from vitresnas.space.operations import (
    AttentionOperation,
    EmbeddingOperation,
    HeadOperation,
    MlpOperation,
    Operation,
    ReductionOperation,
    operations,
    parameters,
)

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def peak_bytes(architecture: Architecture, batch_size: int, dtype: str) -> int:
    """Weights and the largest live activations of one batch in inference."""
    elements = parameters(architecture) + 2 * 3 * architecture.embedding.mid_channels
    return BYTES[dtype] * (elements + batch_size * live_elements(architecture))


def live_elements(architecture: Architecture) -> int:
    """The most activation numbers alive at once, for one image."""
    pieces = operations(architecture)
    held = architecture.channels * architecture.image_size**2  # the images, then stages' outputs
    peak = held + _live(pieces[0])
    output = embedded = _output(pieces[0])
    blocks = 0  # finished in this stage
    for operation in pieces[1:]:
        # The caller holds the embedding's output while the first stage runs; for its first block
        # that is the block's own input.
        caller = embedded if blocks else 0
        if isinstance(operation, MlpOperation):
            peak = max(peak, held + caller + output + _live(operation))
            blocks += 1
        elif isinstance(operation, AttentionOperation):
            peak = max(peak, held + caller + _live(operation))
        else:
            held += output
            embedded = blocks = 0
            # What they read is a stage's output, which is held already.
            peak = max(peak, held + _live(operation))
        output = _output(operation)
    return peak


def _live(operation: Operation) -> int:
    """Numbers alive at the fullest moment inside a piece, its input included where it runs alone.

    Reductions and heads read what is held anyway, so their input is not in it.
    """
    match operation:
        case EmbeddingOperation():
            side, mid = operation.image_size // 2, operation.mid_channels
            trunk = mid * side * side
            patches = (operation.image_size // operation.patch_size) ** 2 * operation.width
            # First convolution, input, output and norm of the third; or patches, joined, summed.
            return max(4 * trunk, trunk + patches + 2 * _output(operation))
        case AttentionOperation():
            nc = operation.tokens * operation.width
            ni = operation.tokens * operation.heads * operation.head_dim
            return max(2 * nc + 4 * ni, 3 * nc + ni)
        case MlpOperation():
            nc, nf = operation.tokens * operation.width, operation.tokens * operation.hidden
            return max(2 * nc + 2 * nf, 3 * nc + nf, 3 * nc)
        case ReductionOperation():
            tokens = operation.prefix_tokens + operation.grid**2
            patches = operation.grid**2 // 4
            joined = operation.prefix_tokens + patches
            c, k = operation.width_in, operation.width_out
            # Norm; prefix; convolved with and without positions; both joined; then the skip path:
            # pooled, joined and padded, or padded and the sum.
            path = tokens * c + operation.prefix_tokens * k + 2 * patches * k + joined * k
            return path + max(patches * c + joined * c + joined * k, 2 * joined * k)
        case HeadOperation():
            return operation.tokens * operation.width + 3 * operation.classes
    raise TypeError(f"{operation} has no memory: add its kind to vitresnas/latency/memory.py")


def _output(operation: Operation) -> int:
    match operation:
        case EmbeddingOperation():
            patches = (operation.image_size // operation.patch_size) ** 2
            return (operation.prefix_tokens + patches) * operation.width
        case AttentionOperation() | MlpOperation():
            return operation.tokens * operation.width
        case ReductionOperation():
            return (operation.prefix_tokens + operation.grid**2 // 4) * operation.width_out
    return 0


@dataclass(frozen=True)
class MemoryCheck:
    """Predicted beside measured peaks of a few whole networks, in bytes; `how` it was measured."""

    how: str
    ids: tuple[str, ...]
    predicted: tuple[int, ...]
    measured: tuple[int, ...]

    @property
    def mean_percent(self) -> float:
        return float(np.mean(percentage_errors(self.predicted, self.measured)))

    @property
    def worst_percent(self) -> float:
        return max(percentage_errors(self.predicted, self.measured))

    def __str__(self) -> str:
        return (
            f"peak memory {min(self.measured) / 1e6:.2f} to {max(self.measured) / 1e6:.2f} MB by "
            f"{self.how}: error of the prediction {self.mean_percent:.1f} % mean, "
            f"{self.worst_percent:.1f} % worst of {len(self.ids)} networks"
        )

    def to_json(self) -> JsonObject:
        columns = zip(self.ids, self.predicted, self.measured, strict=True)
        return {
            "how": self.how,
            "networks": [
                {"id": id_, "predicted_bytes": predicted, "measured_bytes": measured}
                for id_, predicted, measured in columns
            ],
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> MemoryCheck:
        reader = Fields(value, where)
        how = reader.text("how")
        rows = reader.items("networks", _row)
        reader.done()
        if not rows:
            raise FileFormatError(f"{where} has no networks: measure the table again")
        ids, predicted, measured = zip(*rows, strict=True)
        return cls(how, ids, predicted, measured)


def _row(value: object, where: str) -> tuple[str, int, int]:
    reader = Fields(value, where)
    row = (
        reader.text("id"),
        reader.integer("predicted_bytes"),
        reader.integer("measured_bytes"),
    )
    reader.done()
    return row
