// Which token feeds which in a 3x3 stride-2 convolution with one pixel of padding, as arithmetic alone:
// no tensors, so that tests can compare it with brute force for every grid.
//
// A grid of side x side tokens becomes one of half = side / 2. Output (i, j) reads, under tap (u, v) of
// the filter, the input at (2i + u - 1, 2j + v - 1); only the top row and the left column can miss.
//
// Turned round: inputs (2i + p, 2j + q) of one parity class (p, q) all see the same taps, so that the
// gradient of a class is a sum of plain matrix products (1, 2, 2 and 4 of them: 9 taps, no zeros multiplied).
// Along one axis an even input is seen by tap 1 of output i; an odd one by tap 2 of output i and tap 0 of
// output i + 1, which misses at the last i.
#pragma once

#include <cstdint>

namespace vitresnas {

// The token at (stride * i + down, stride * j + right) of a side x side grid, or -1 outside of it.
constexpr int64_t token_at(int64_t i, int64_t j, int64_t stride, int64_t down, int64_t right,
                           int64_t side) {
    const int64_t row = stride * i + down, column = stride * j + right;
    return row < 0 || column < 0 || row >= side || column >= side ? -1 : row * side + column;
}

}  // namespace vitresnas
