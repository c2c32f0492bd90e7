"""An architecture as its priced pieces.

MACs, parameters, the latency table and its measurement all read this one list, so they cannot
drift apart. An operation is a hashable key: two blocks of the same shape are the same operation.

MAC convention (the paper's golden figures): linears, convolutions and both attention products;
not biases, norms, GELU, softmax, position additions, pooling. The classifier counts once,
whatever the number of prefix tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import ClassVar

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject
from vitresnas.space.architecture import Architecture


@dataclass(frozen=True)
class Operation:
    """One priced piece; its fields are everything its time can depend on within one condition."""

    kind: ClassVar[str]

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        raise NotImplementedError

    @property
    def parameters(self) -> int:
        raise NotImplementedError

    def to_json(self) -> JsonObject:
        return {"kind": self.kind, **asdict(self)}

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{k}={v}' for k, v in asdict(self).items())})"


@dataclass(frozen=True)
class EmbeddingOperation(Operation):
    """Patch embedding, prefix tokens and position embedding: pixels to tokens."""

    kind: ClassVar[str] = "embedding"
    image_size: int
    patch_size: int
    channels: int
    mid_channels: int
    prefix_tokens: int
    width: int

    @property
    def macs(self) -> int:
        return self._trunk_weights * (self.image_size // 2) ** 2 + self._patches * (
            self._projection_weights
        )

    @property
    def parameters(self) -> int:
        batch_norms = 3 * 2 * self.mid_channels
        projection = self._projection_weights + self.width
        tokens = self.prefix_tokens * self.width
        positions = (self.prefix_tokens + self._patches) * self.width
        return self._trunk_weights + batch_norms + projection + tokens + positions

    @property
    def _patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def _trunk_weights(self) -> int:
        return 9 * self.mid_channels * (self.channels + 2 * self.mid_channels)

    @property
    def _projection_weights(self) -> int:
        if self.mid_channels:
            return (self.patch_size // 2) ** 2 * self.mid_channels * self.width
        return self.patch_size**2 * self.channels * self.width


@dataclass(frozen=True)
class AttentionOperation(Operation):
    """x + Attention(LayerNorm(x))."""

    kind: ClassVar[str] = "attention"
    tokens: int
    width: int
    heads: int
    head_dim: int

    @property
    def macs(self) -> int:
        inner = self.heads * self.head_dim
        return 4 * self.tokens * self.width * inner + 2 * self.tokens**2 * inner

    @property
    def parameters(self) -> int:
        inner = self.heads * self.head_dim
        norm, qkv, projection = 2 * self.width, 3 * inner * (self.width + 1), inner * self.width
        return norm + qkv + projection + self.width


@dataclass(frozen=True)
class MlpOperation(Operation):
    """x + MLP(LayerNorm(x))."""

    kind: ClassVar[str] = "mlp"
    tokens: int
    width: int
    hidden: int

    @property
    def macs(self) -> int:
        return 2 * self.tokens * self.width * self.hidden

    @property
    def parameters(self) -> int:
        return 2 * self.width + 2 * self.width * self.hidden + self.hidden + self.width


@dataclass(frozen=True)
class ReductionOperation(Operation):
    """Residual spatial reduction from `grid` to `grid` / 2 (ViT-ResNAS, section 3.2)."""

    kind: ClassVar[str] = "reduction"
    grid: int
    prefix_tokens: int
    width_in: int
    width_out: int

    @property
    def macs(self) -> int:
        pairs = self.width_in * self.width_out
        return 9 * (self.grid // 2) ** 2 * pairs + self.prefix_tokens * pairs

    @property
    def parameters(self) -> int:
        convolution = 9 * self.width_in * self.width_out + self.width_out
        prefix = self.width_in * self.width_out + self.width_out
        positions = (self.grid // 2) ** 2 * self.width_out
        return 2 * self.width_in + convolution + prefix + positions


@dataclass(frozen=True)
class HeadOperation(Operation):
    """Final LayerNorm and the classifiers on the prefix tokens."""

    kind: ClassVar[str] = "head"
    tokens: int
    prefix_tokens: int
    width: int
    classes: int

    @property
    def macs(self) -> int:
        return self.width * self.classes

    @property
    def parameters(self) -> int:
        return 2 * self.width + self.prefix_tokens * (self.width + 1) * self.classes


OPERATION_KINDS: dict[str, type[Operation]] = {
    cls.kind: cls
    for cls in (
        EmbeddingOperation,
        AttentionOperation,
        MlpOperation,
        ReductionOperation,
        HeadOperation,
    )
}


def operation_from_json(value: object, where: str = "the operation") -> Operation:
    """Raises FileFormatError for an unknown kind or field."""
    reader = Fields(value, where)
    kind = reader.text("kind", choices=tuple(OPERATION_KINDS))
    cls = OPERATION_KINDS[kind]
    operation = cls(**{field.name: reader.integer(field.name, minimum=0) for field in fields(cls)})
    try:
        reader.done()
    except FileFormatError as error:
        raise FileFormatError(f"{error} (of a {kind} operation)") from None
    return operation


def operations(architecture: Architecture) -> tuple[Operation, ...]:
    """Every piece of a network in the order in which it runs; repeated pieces appear repeatedly."""
    return tuple(_walk(architecture))


def _walk(architecture: Architecture) -> Iterator[Operation]:
    stages, prefix = architecture.stages, architecture.prefix_tokens
    yield EmbeddingOperation(
        architecture.image_size,
        architecture.patch_size,
        architecture.channels,
        architecture.embedding.mid_channels,
        prefix,
        stages[0].embed,
    )
    for index, (stage, tokens) in enumerate(zip(stages, architecture.tokens, strict=True)):
        if index:
            grid = architecture.grids[index - 1]
            yield ReductionOperation(grid, prefix, stages[index - 1].embed, stage.embed)
        for block in stage.kept:
            yield AttentionOperation(tokens, stage.embed, block.heads, stage.head_dim)
            yield MlpOperation(tokens, stage.embed, block.hidden)
    yield HeadOperation(architecture.tokens[-1], prefix, stages[-1].embed, architecture.classes)


@lru_cache(maxsize=1 << 14)  # a search asks for the same networks again and again
def macs(architecture: Architecture) -> int:
    """Multiply-accumulates for one image."""
    return sum(operation.macs for operation in _walk(architecture))


@lru_cache(maxsize=1 << 14)
def parameters(architecture: Architecture, *, patch_head: bool = False) -> int:
    """Learned numbers; `patch_head` adds the classifier on patch tokens used in training only."""
    total = sum(operation.parameters for operation in _walk(architecture))
    if patch_head:
        total += (architecture.stages[-1].embed + 1) * architecture.classes
    return total
