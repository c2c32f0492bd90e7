"""Networks built from an Architecture."""

from vitresnas.models.features import Features
from vitresnas.models.vit_res import ViTRes, create_model

__all__ = ["Features", "ViTRes", "create_model"]
