"""Model directories as files that run without this package: torch.export and ONNX."""

from vitresnas.export.export import FORMATS, Exported, export_model

__all__ = ["FORMATS", "Exported", "export_model"]
