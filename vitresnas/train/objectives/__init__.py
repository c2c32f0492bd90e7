"""Objectives: (logits by head, soft targets (B, K)) -> losses by name, "loss" among them.

A new objective is a new file; the trainer minimises "loss" and logs the rest.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from vitresnas.train.objectives.classification import classification

Objective = Callable[[Mapping[str, Tensor], Tensor], dict[str, Tensor]]

__all__ = ["Objective", "classification"]
