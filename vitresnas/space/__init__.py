"""Architectures, spaces and their priced pieces as plain values; no torch in here."""

from vitresnas.space.architecture import Architecture, Block, Embedding, Stage
from vitresnas.space.operations import (
    AttentionOperation,
    EmbeddingOperation,
    HeadOperation,
    MlpOperation,
    Operation,
    ReductionOperation,
    macs,
    operation_from_json,
    operations,
    parameters,
)
from vitresnas.space.presets import (
    NETWORKS,
    SPACES,
    derive_space,
    load_architecture,
    load_space,
)
from vitresnas.space.search_space import SearchSpace, StageChoices

__all__ = [
    "NETWORKS",
    "SPACES",
    "Architecture",
    "AttentionOperation",
    "Block",
    "Embedding",
    "EmbeddingOperation",
    "HeadOperation",
    "MlpOperation",
    "Operation",
    "ReductionOperation",
    "SearchSpace",
    "Stage",
    "StageChoices",
    "derive_space",
    "load_architecture",
    "load_space",
    "macs",
    "operation_from_json",
    "operations",
    "parameters",
]
