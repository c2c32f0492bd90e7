"""The weight-sharing super-network: group-wise passes, draws, sorting, extraction."""

from vitresnas.supernet.directory import load_supernet, save_supernet
from vitresnas.supernet.sampling import draw_architectures
from vitresnas.supernet.sorting import sort_channels
from vitresnas.supernet.supernet import Supernet

__all__ = ["Supernet", "draw_architectures", "load_supernet", "save_supernet", "sort_channels"]
