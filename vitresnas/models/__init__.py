"""Networks built from an Architecture; importing this registers the published ones in timm."""

from vitresnas.models import registry as _registry  # noqa: F401  for timm.create_model
from vitresnas.models.compiled import compile_pieces
from vitresnas.models.features import Features
from vitresnas.models.graphed import GraphedNetwork
from vitresnas.models.inference import optimise_for_inference
from vitresnas.models.model_directory import load_model, save_model
from vitresnas.models.official import import_official
from vitresnas.models.vit_res import ViTRes, create_model

__all__ = [
    "Features",
    "GraphedNetwork",
    "ViTRes",
    "compile_pieces",
    "create_model",
    "import_official",
    "load_model",
    "optimise_for_inference",
    "save_model",
]
