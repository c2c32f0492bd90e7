"""Search vision transformers with residual spatial reduction for a throughput, and prove it.

The public index. Names are imported when they are first used, so that `import vitresnas` and the
rooms without torch (space, latency tables, search strategies, files) stay light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitresnas.errors import VitresnasError
    from vitresnas.latency.table import LatencyTable, load_tables
    from vitresnas.models import (
        Features,
        ViTRes,
        create_model,
        load_model,
        optimise_for_inference,
        save_model,
    )
    from vitresnas.space import (
        Architecture,
        SearchSpace,
        derive_space,
        load_architecture,
        load_space,
        macs,
        operations,
        parameters,
    )
    from vitresnas.supernet import Supernet, load_supernet, save_supernet

__version__ = "0.1.0"

_INDEX = {
    "vitresnas.errors": ("VitresnasError",),
    "vitresnas.latency.table": ("LatencyTable", "load_tables"),
    "vitresnas.models": (
        "Features",
        "ViTRes",
        "create_model",
        "load_model",
        "optimise_for_inference",
        "save_model",
    ),
    "vitresnas.space": (
        "Architecture",
        "SearchSpace",
        "derive_space",
        "load_architecture",
        "load_space",
        "macs",
        "operations",
        "parameters",
    ),
    "vitresnas.supernet": ("Supernet", "load_supernet", "save_supernet"),
}
_HOME = {name: module for module, names in _INDEX.items() for name in names}

__all__ = [
    "Architecture",
    "Features",
    "LatencyTable",
    "SearchSpace",
    "Supernet",
    "ViTRes",
    "VitresnasError",
    "__version__",
    "create_model",
    "derive_space",
    "load_architecture",
    "load_model",
    "load_space",
    "load_supernet",
    "load_tables",
    "macs",
    "operations",
    "optimise_for_inference",
    "parameters",
    "save_model",
    "save_supernet",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vitresnas' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # the next look-up is an ordinary one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
