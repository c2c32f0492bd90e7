"""BatchNorm over the batches of all processes (Ioffe and Szegedy, 2015), on CPUs and GPUs alike.

torch's SyncBatchNorm refuses CPUs. Here every process gathers the others' means and variances and
combines them in the same order, so that all of them hold the same statistics bit for bit.
B images, C channels; every process brings the same number of images.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_ALL_BUT_CHANNELS = (0, 2, 3)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d, with training statistics of all processes; parameters keep their names."""

    def forward(self, input: Tensor) -> Tensor:  # the name that nn.Module's callers may use
        if not self.training:
            return super().forward(input)
        result: Tensor
        result, mean_C, variance_C, count = _SharedNorm.apply(
            input, self.weight, self.bias, self.eps
        )
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
            unbiased_C = variance_C * (count / max(count - 1, 1))
            self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), self.momentum)
        return result


def share_batch_norm(model: nn.Module) -> None:
    """Make every BatchNorm2d of `model` a shared one, with the same parameters and buffers."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                shared.weight, shared.bias = child.weight, child.bias
                for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                    setattr(shared, buffer, getattr(child, buffer))
                setattr(parent, name, shared.train(child.training))


class _SharedNorm(torch.autograd.Function):
    """(x, weight, bias, eps) to (normalised x, mean, biased variance, values per channel)."""

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        wide = torch.promote_types(x_BCHW.dtype, torch.float32)
        variance_C, mean_C = torch.var_mean(x_BCHW.to(wide), _ALL_BUT_CHANNELS, correction=0)
        mean_PC, variance_PC = _gather(torch.stack((mean_C, variance_C))).unbind(1)
        mean_C = mean_PC.mean(0)
        # The parts' variances, and the variance of their means (Chan, Golub and LeVeque, 1979).
        variance_C = (variance_PC + (mean_PC - mean_C).square()).mean(0)
        ctx.save_for_backward(x_BCHW, weight_C, mean_C, (variance_C + eps).rsqrt())
        y_BCHW = F.batch_norm(x_BCHW, mean_C, variance_C, weight_C, bias_C, False, 0.0, eps)
        ctx.mark_non_differentiable(mean_C, variance_C)
        count = x_BCHW.numel() // len(mean_C) * len(mean_PC)
        return y_BCHW, mean_C, variance_C, count

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x_BCHW, weight_C, mean_C, inverse_C = ctx.saved_tensors
        shape = (1, -1, 1, 1)
        normal_BCHW = (x_BCHW.to(mean_C.dtype) - mean_C.view(shape)) * inverse_C.view(shape)
        wide_BCHW = grad_BCHW.to(mean_C.dtype)
        bias_C = wide_BCHW.sum(_ALL_BUT_CHANNELS)
        scale_C = (wide_BCHW * normal_BCHW).sum(_ALL_BUT_CHANNELS)
        # What flows back through the statistics comes from the losses of all processes.
        sums_PKC = _gather(torch.stack((bias_C, scale_C)))
        count = x_BCHW.numel() // len(mean_C) * len(sums_PKC)
        mean_bias_C, mean_scale_C = (sums_PKC.sum(0) / count).unbind(0)
        through_BCHW = wide_BCHW - mean_bias_C.view(shape) - normal_BCHW * mean_scale_C.view(shape)
        x_grad_BCHW = through_BCHW * (weight_C * inverse_C).view(shape)
        return x_grad_BCHW.to(x_BCHW.dtype), scale_C.to(weight_C), bias_C.to(weight_C), None


def _gather(mine: Tensor) -> Tensor:
    """Every process's tensor, stacked in the order of their ranks."""
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return torch.stack(parts)
