"""Token-level mixing (ViT-ResNAS, section 4): half of every group CutMix, the other half Mixup.

Half of every group and not of the batch, so that no sub-network sees one kind alone.
B images of side S in groups, L x L cells, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from vitresnas.data.streams import generator, stream


def mix_tokens(
    images_BCHW: Tensor,
    targets_BK: Tensor,
    *,
    groups: int,
    grid: int,
    cutmix: float,
    mixup: float,
    place: tuple[int, str, int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixed images, their soft targets (B, K), and those of each cell (B, L*L, K), row by row.

    groups: into how many equal groups, one after the other, the batch falls; the first half of
    each is cut, the rest mixed up. grid: L, which divides S. cutmix, mixup: Beta parameters.
    place: a seed and where its stream is used; all draws come from it.
    """
    rng = Random(stream(*place))
    places = generator(place[0], *place[1:])
    position_B = torch.arange(len(images_BCHW)) % (len(images_BCHW) // groups)
    is_cut_B = position_B < len(images_BCHW) // groups // 2
    cut, blended = (_paired(half, places) for half in (is_cut_B, ~is_cut_B))
    box = draw_box(rng, grid, cutmix)
    share = rng.betavariate(mixup, mixup)

    device, cell = images_BCHW.device, images_BCHW.shape[-1] // grid
    pasted_LL = torch.zeros(grid, grid, dtype=torch.bool)
    pasted_LL[box.rows, box.columns] = True
    pasted_LL = pasted_LL.to(device)
    pasted_SS = pasted_LL.repeat_interleave(cell, 0).repeat_interleave(cell, 1)

    images, targets = images_BCHW.clone(), targets_BK.clone()
    patches_BNK = targets_BK[:, None].repeat(1, grid * grid, 1)
    here, other = (indices.to(device) for indices in cut)
    if len(here):
        images[here] = torch.where(pasted_SS, images_BCHW[other], images_BCHW[here])
        patches_BNK[here] = torch.where(
            pasted_LL.flatten()[:, None], targets_BK[other][:, None], targets_BK[here][:, None]
        )
        targets[here] = patches_BNK[here].mean(1)
    here, other = (indices.to(device) for indices in blended)
    images[here] = images_BCHW[here].lerp(images_BCHW[other], 1 - share)
    targets[here] = targets_BK[here].lerp(targets_BK[other], 1 - share)
    patches_BNK[here] = targets[here][:, None]
    return images, targets, patches_BNK


@dataclass(frozen=True)
class Box:
    """A rectangle of cells."""

    rows: slice
    columns: slice


def draw_box(rng: Random, grid: int, beta: float) -> Box:
    """About Beta(beta, beta) of the cells; never higher than L - 2 rows where L allows."""
    area = int(rng.betavariate(beta, beta) * grid * grid)
    height = rng.randint(1, max(1, min(grid, area) - 2))
    width = min(area // height, grid)
    top, left = rng.randint(0, grid - height), rng.randint(0, grid - width)
    return Box(slice(top, top + height), slice(left, left + width))


def _paired(chosen_B: Tensor, places: torch.Generator) -> tuple[Tensor, Tensor]:
    """The chosen positions, and the same in a random order."""
    indices = chosen_B.nonzero().flatten()
    return indices, indices[torch.randperm(len(indices), generator=places)]
