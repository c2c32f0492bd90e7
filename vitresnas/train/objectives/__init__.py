"""Objectives: (logits by head, soft targets by head) -> losses by name, "loss" among them.

A new objective is a new file; the trainer minimises "loss" and logs the rest.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from vitresnas.train.objectives.classification import classification
from vitresnas.train.objectives.in_place import in_place_distillation
from vitresnas.train.objectives.teaching import teaching

Objective = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]

__all__ = ["Objective", "classification", "in_place_distillation", "teaching"]
