"""Token-level mixing: labels follow the cells, in half of every group."""

from __future__ import annotations

from random import Random

import pytest
import torch

from vitresnas.data import Mixer, Mixing
from vitresnas.data.token_mixing import draw_box, mix_tokens
from vitresnas.errors import InputError

GRID, CELL = 4, 3
TOKENS = Mixing(mixup=0.8, cutmix=1.0, smoothing=0.0, tokens=True)


def batch(size: int):
    """Images that are their own labels: every pixel of image i is i; K = B classes."""
    values_B = torch.arange(size, dtype=torch.float32)
    images = values_B[:, None, None, None].expand(size, 3, GRID * CELL, GRID * CELL)
    return images.contiguous(), torch.arange(size)


def mixed(size=16, groups=1, step=0, mixing=TOKENS):
    mixer = Mixer(mixing, size, seed=5, groups=groups, grid=GRID)
    images, labels = batch(size)
    images, targets = mixer(images, labels, 0, step)
    return images, targets["class"], targets["patch"]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_labels_tell_what_the_pixels_show(groups):
    values_K = torch.arange(16.0)
    boxes = set()
    for step in range(20):
        images, targets, patches = mixed(groups=groups, step=step)
        cells = images[:, 0].unfold(1, CELL, CELL).unfold(2, CELL, CELL)  # (B, L, L, 3, 3)
        assert torch.equal(cells.amax((3, 4)), cells.amin((3, 4)))  # boxes follow the cells
        shown = cells.amax((3, 4)).flatten(1)
        torch.testing.assert_close(patches @ values_K, shown)
        torch.testing.assert_close(targets, patches.mean(1))
        torch.testing.assert_close(patches.sum(2), torch.ones(16, GRID * GRID))
        is_cut = (torch.arange(16) % (16 // groups)) < 16 // groups // 2
        assert set(patches[is_cut].unique().tolist()) <= {0.0, 1.0}  # cut, never blended
        assert (patches[~is_cut] == patches[~is_cut][:, :1]).all()  # one label for all cells
        boxes.add(tuple((shown != shown[:, :1]).any(0).tolist()))
        # images are pasted from their own half alone
        sources = patches[is_cut].amax((0, 1)).nonzero().flatten()
        assert is_cut[sources].all()
    assert len(boxes) > 5


def test_a_box_has_the_height_and_width_of_the_paper():
    rng = Random(0)
    boxes = [draw_box(rng, 4, 1.0) for _ in range(500)]
    heights = {box.rows.stop - box.rows.start for box in boxes}
    widths = {box.columns.stop - box.columns.start for box in boxes}
    assert heights == {1, 2} and widths == {0, 1, 2, 3, 4}
    assert all(box.rows.stop <= 4 and box.columns.stop <= 4 for box in boxes)
    assert draw_box(rng, 1, 1.0).rows == slice(0, 1)


def test_a_step_draws_from_its_own_stream():
    first, again, other = mixed(step=3), mixed(step=3), mixed(step=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_smoothing_and_odd_groups():
    images, targets, patches = mixed(6, groups=6, mixing=Mixing(0.8, 1.0, tokens=True))
    assert images.shape[0] == 6 and patches.shape == (6, 16, 6)
    assert targets.min().item() == pytest.approx(0.1 / 6)
    values = batch(5)[0]
    out = mix_tokens(
        values, torch.eye(5), groups=1, grid=4, cutmix=1.0, mixup=1.0, place=(0, "mix", 0, 0)
    )
    assert all(tensor.isfinite().all() for tensor in out)


def test_half_of_the_method_is_refused():
    with pytest.raises(InputError, match=r"mixup is 0\.8, cutmix 0\.0"):
        Mixing(mixup=0.8, tokens=True)
