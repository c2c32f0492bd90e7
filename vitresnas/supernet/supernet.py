"""Supernet: one set of weights, every sub-network of a space (ViT-ResNAS, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitresnas.errors import InputError, MismatchError
from vitresnas.models.vit_res import ViTRes, check_image, combine_heads, create_model
from vitresnas.space.architecture import Architecture
from vitresnas.space.search_space import SearchSpace
from vitresnas.supernet import architecture_table, fused, masked, sliced, slicing
from vitresnas.supernet.drop_path import DropPathScales

PATHS = ("fused", "sliced", "masked")


class Supernet(nn.Module):
    """The weights of a space's largest network, run as many sub-networks in one pass.

    A batch of B images is divided into contiguous equal groups; group g runs the g-th
    architecture. `path` chooses how: `fused` runs variable-width kernels on full-width storage,
    `sliced` computes each group's part by plain torch on slices, `masked` computes everything at
    full width and multiplies by masks, as the paper does. All give the same loss and gradients;
    gradients are full-size, zero where no group reaches, never None.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        drop_path: float = 0.0,
        patch_head: bool = False,
        path: str = "sliced",
    ) -> None:
        super().__init__()
        if path not in PATHS:
            raise InputError(f"path is {path!r}: use one of {', '.join(PATHS)}")
        self.space, self.path = space, path
        self.network: ViTRes = create_model(
            space.largest, drop_path=drop_path, patch_head=patch_head
        )

    def forward(
        self, images_BCHW: Tensor, architectures: Sequence[Architecture]
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, K); with a distillation token a pair in training, their mean otherwise."""
        logits = self.forward_heads(images_BCHW, architectures, patches=False)
        return combine_heads(logits, self.training)

    def forward_heads(
        self,
        images_BCHW: Tensor,
        architectures: Sequence[Architecture],
        *,
        patches: bool = True,
    ) -> dict[str, Tensor]:
        """Each head's logits by name; see ViTRes.forward_heads."""
        trunk_BMHW = self.forward_trunk(images_BCHW)
        return self.forward_from_trunk(trunk_BMHW, architectures, patches=patches)

    def forward_trunk(self, images_BCHW: Tensor) -> Tensor:
        """What all sub-networks share: (B, M, side/2, side/2), run once on the whole batch."""
        check_image(images_BCHW, self.network.architecture)
        if self.path == "fused" and images_BCHW.is_cpu:
            # With so few channels oneDNN's convolutions are twice as fast when they lie innermost.
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.network.embedding.trunk(images_BCHW)
        return features

    def forward_from_trunk(
        self, trunk_BMHW: Tensor, architectures: Sequence[Architecture], *, patches: bool = True
    ) -> dict[str, Tensor]:
        """The rest of `forward_heads`; scoring many candidates repeats only this part."""
        self.check(len(trunk_BMHW), architectures)
        if self.path != "sliced":
            table_LFG = architecture_table.encode(architectures)
            return self._by_table(
                trunk_BMHW, table_LFG.to(trunk_BMHW.device, non_blocking=True), patches
            )
        scales = DropPathScales.draw(self.network, trunk_BMHW, len(architectures))
        tokens = sliced.sliced_tokens(self.network, trunk_BMHW, architectures, scales)
        logits = sliced.sliced_heads(self.network, tokens, patches=patches)
        if torch.is_grad_enabled():
            logits["class"] = _ZeroGradients.apply(
                logits["class"], *self._unused(architectures, patches=patches)
            )
        return logits

    def forward_table(
        self, images_BCHW: Tensor, table_LFG: Tensor, *, patches: bool = False
    ) -> dict[str, Tensor]:
        """`forward_heads` of the sub-networks in an architecture table.

        table_LFG: architecture_table.encode(architectures), on the images' device. Nothing here
        depends on what it holds but the values that kernels read: torch.compile makes one graph of
        it, a CUDA graph replays it for other sub-networks. Nobody checks that they lie in the
        space: encode architectures that do. The sliced path has no such form: its shapes are the
        widths.
        """
        if self.path == "sliced":
            raise InputError('forward_table needs path="fused" or "masked", this is "sliced"')
        return self._by_table(self.forward_trunk(images_BCHW), table_LFG, patches)

    def _by_table(self, trunk_BMHW: Tensor, table_LFG: Tensor, patches: bool) -> dict[str, Tensor]:
        network = self.network
        scales = DropPathScales.draw(network, trunk_BMHW, table_LFG.shape[-1])
        if self.path == "masked":
            tokens_BNC = masked.masked_tokens(network, trunk_BMHW, table_LFG, scales)
            logits = network.heads(tokens_BNC, patches=patches)
        else:
            tokens_BNC = fused.fused_tokens(network, trunk_BMHW, table_LFG, scales)
            logits = fused.fused_heads(network, tokens_BNC, table_LFG, patches=patches)
        if torch.is_grad_enabled() and not patches and network.patch_head is not None:
            unused = network.patch_head.parameters()
            logits["class"] = _ZeroGradients.apply(logits["class"], *unused)
        return logits

    def extract(self, architecture: Architecture) -> ViTRes:
        """A stand-alone network with copies of its inherited weights. Raises MismatchError."""
        self.check(1, (architecture,))
        return slicing.extract(self.network, architecture)

    def check(self, images: int, architectures: Sequence[Architecture]) -> None:
        if not architectures or images % len(architectures):
            raise InputError(
                f"{images} images cannot be divided into {len(architectures)} equal groups: "
                "make the batch size a multiple of the number of architectures"
            )
        for architecture in architectures:
            reason = self.space.reason_outside(architecture)
            if reason:
                raise MismatchError(
                    f"architecture {architecture.id} is not in the space "
                    f"{self.space.name}: {reason}"
                )

    def _unused(
        self, architectures: Sequence[Architecture], *, patches: bool
    ) -> list[nn.Parameter]:
        """Parameters that no group touches in this pass."""
        unused: list[nn.Parameter] = []
        for index, stage in enumerate(self.network.stages):
            for position, block in enumerate(stage.blocks):
                if all(a.stages[index].blocks[position] is None for a in architectures):
                    unused += block.parameters()
        if not patches and self.network.patch_head is not None:
            unused += self.network.patch_head.parameters()
        return unused


class _ZeroGradients(torch.autograd.Function):
    """Passes a tensor through and gives parameters that nothing used a gradient of zeros.

    A missing gradient would make AdamW skip decay and momentum, and DDP wait for ever.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        zeros = (torch.zeros_like(p) if p.requires_grad else None for p in ctx.saved_tensors)
        return grad, *zeros
