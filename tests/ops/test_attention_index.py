"""The index arithmetic of the CUDA attention kernels (csrc/index/attention.h), by brute force."""

from __future__ import annotations

import ctypes

import pytest

from tests.ops.emulation import build
from vitresnas.ops.variable_attention_cuda import SIZES

ALL = [(tokens, head_dim) for tokens, sizes in SIZES.items() for head_dim in sizes]
LANES = range(32)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return build("attention_index.cpp", tmp_path_factory.mktemp("index"))


def numbers(function, *arguments, count):
    """What a C function writes through its last `count` pointers."""
    found = [ctypes.c_int() for _ in range(count)]
    function(*arguments, *(ctypes.byref(one) for one in found))
    return tuple(one.value for one in found)


@pytest.mark.parametrize("columns", [16, 32, 48, 64, 80])
def test_swizzled_rows_hold_every_chunk_once_and_stay_in_their_place(index, columns):
    chunks = columns // 8
    for row in range(258):
        offsets = {index.matrix_offset(columns, row, chunk) for chunk in range(chunks)}
        assert offsets == {(row * chunks + chunk) * 16 for chunk in range(chunks)}


@pytest.mark.parametrize("columns", [16, 32, 48, 64, 80])
def test_eight_rows_at_one_chunk_lie_in_eight_banks(index, columns):
    for first in range(0, 256, 8):
        for chunk in range(columns // 8):
            rows = range(first, first + 8)
            assert len({index.matrix_offset(columns, r, chunk) // 16 % 8 for r in rows}) == 8


@pytest.mark.parametrize("columns", [16, 32, 48, 64, 80])
def test_a_strip_further_down_is_the_same_strip_moved(index, columns):
    for row in range(16):
        for chunk in range(columns // 8):
            below = index.matrix_offset(columns, row + 16, chunk)
            assert below == index.matrix_offset(columns, row, chunk) + 16 * columns * 2


def test_lanes_point_at_every_row_and_chunk_of_a_tile_once(index):
    places = [numbers(index.lane_places, lane, count=4) for lane in LANES]
    tile = {(row, chunk) for row in range(16) for chunk in range(2)}
    assert {place[:2] for place in places} == {place[2:] for place in places} == tile
    # Matrix i of the instruction: its first row and its chunk, in the order registers need them.
    assert [places[8 * i][:2] for i in range(4)] == [(0, 0), (8, 0), (0, 1), (8, 1)]
    assert [places[8 * i][2:] for i in range(4)] == [(0, 0), (0, 1), (8, 0), (8, 1)]
    for lane in LANES:
        assert places[lane][0] % 8 == places[lane][2] % 8 == lane % 8


def test_fragments_cover_the_tile_and_pairs_are_neighbours(index):
    place = {
        (lane, i): numbers(index.fragment_place, lane, i, count=2)
        for lane in LANES
        for i in range(4)
    }
    assert set(place.values()) == {(row, column) for row in range(16) for column in range(8)}
    for lane in LANES:
        for i in (0, 2):
            row, column = place[lane, i]
            assert column % 2 == 0 and place[lane, i + 1] == (row, column + 1)
        # A quad shares its two rows: maxima and sums go through lanes 1 and 2 away.
        assert place[lane, 0][0] == place[lane ^ 3, 0][0] == place[lane, 2][0] - 8


@pytest.mark.parametrize("heads", [1, 3, 6, 12])
def test_every_image_and_head_is_one_problem(index, heads):
    found = [numbers(index.problem_of, i, heads, count=2) for i in range(5 * heads)]
    assert found == [(image, head) for image in range(5) for head in range(heads)]


@pytest.mark.parametrize(("tokens", "head_dim"), ALL)
def test_strips_read_rows_that_exist_write_one_spare_row_and_store_each_row_once(
    index, tokens, head_dim
):
    stored = []
    for strip in range(-(-tokens // 16)):
        for row in range(16):
            at = strip * 16 + row
            readable, writable, exists = numbers(
                index.strip_row, tokens, head_dim, strip, row, count=3
            )
            assert readable == min(at, tokens - 1) and writable == min(at, tokens)
            stored += [at] if exists else []
    assert stored == list(range(tokens))


@pytest.mark.parametrize(("tokens", "head_dim"), ALL)
def test_schedules_cover_every_strip_and_every_column_once(index, tokens, head_dim):
    strips, pairs = -(-tokens // 16), head_dim // 16
    covered = (ctypes.c_int * (2 * strips + strips * pairs))()
    assert index.coverage(tokens, head_dim, covered) == strips
    assert list(covered) == [1] * len(covered)


@pytest.mark.parametrize(("tokens", "head_dim"), ALL)
@pytest.mark.parametrize("backward", [0, 1])
def test_the_blocks_that_registers_are_held_to_fit_an_h100s_shared_memory(
    index, tokens, head_dim, backward
):
    threads, blocks, shared = numbers(index.plan, tokens, head_dim, backward, count=3)
    assert threads % 32 == 0 and 32 <= threads <= 1024
    assert shared <= 227 * 1024
    assert blocks * (shared + 1024) <= 228 * 1024  # each block costs 1 KiB more
