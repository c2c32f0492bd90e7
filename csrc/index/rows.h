// Where rows and columns of grouped activations lie: index arithmetic alone, the same on the host
// and on a GPU, tested against brute force in tests/ops/test_masked_layer_norm.py.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define VITRESNAS_BOTH __host__ __device__ __forceinline__
#else
#define VITRESNAS_BOTH inline
#endif

namespace vitresnas {

struct Span {
    int64_t first, last;  // [first, last)
};

// Widths are rounded up to this many columns: ops store zeros up to there, and may load that far.
constexpr int64_t UNIT = 16;

VITRESNAS_BOTH constexpr int64_t at_most(int64_t value, int64_t limit) {
    return value < limit ? value : limit;
}

// `width` within [0, columns], rounded up to whole units but not beyond the columns there are.
VITRESNAS_BOTH constexpr int64_t padded_width(int64_t width, int64_t columns) {
    const int64_t inside = at_most(width < 0 ? 0 : width, columns);
    return at_most((inside + UNIT - 1) / UNIT * UNIT, columns);
}

// Where an op stops writing a row: the next unit, or the whole row.
VITRESNAS_BOTH constexpr int64_t written_width(int64_t width, int64_t columns, bool padded) {
    return padded ? padded_width(width, columns) : columns;
}

// The group of a row, groups being `per_group` consecutive rows each.
VITRESNAS_BOTH constexpr int64_t group_of_row(int64_t row, int64_t per_group) {
    return row / per_group;
}

// Chunk `chunk` of `chunks` of the rows of `group`: every row in one chunk, in order, chunks equal
// but for the last ones, which may be shorter or empty.
VITRESNAS_BOTH constexpr Span chunk_of_rows(int64_t group, int64_t chunk, int64_t per_group,
                                            int64_t chunks) {
    const int64_t step = (per_group + chunks - 1) / chunks;
    const int64_t base = group * per_group;
    return {base + at_most(chunk * step, per_group), base + at_most((chunk + 1) * step, per_group)};
}

}  // namespace vitresnas
