// A small matrix product in registers: C (+)= A B, of numbers that lie in the first-level caches.
#pragma once

#include "cpu/wide.h"

namespace vitresnas {

// a(i, k) = a[i * a_row + k * a_step], so that A may be a transpose; b(k, j) = b[k * b_row + j];
// c(i, j) = c[i * c_row + j]. j runs over whole vectors: b and c are padded to them.
template <typename A> struct Product {
    const A *a;
    int64_t a_row, a_step;
    const A *b;
    int64_t b_row;
    A *c;
    int64_t c_row;
    int64_t rows, vectors, depth;
    bool add;
};

constexpr int tile_rows = 6;  // times 4 vectors: 24 of 32 registers hold sums (times 2: 12 of 16)

template <typename A, int BYTES, int M, int N>
VITRESNAS_INLINE void tile(const Product<A> &p, int64_t row, int64_t vector) {
    using W = Wide<A, BYTES>;
    const A *a = p.a + row * p.a_row, *b = p.b + vector * W::lanes;
    A *c = p.c + row * p.c_row + vector * W::lanes;
    typename W::Vector sum[M][N];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) sum[i][j] = typename W::Vector{};
    for (int64_t k = 0; k < p.depth; ++k, a += p.a_step, b += p.b_row) {
        typename W::Vector right[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) right[j] = W::load(b + j * W::lanes);
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) sum[i][j] += a[i * p.a_row] * right[j];
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) {
            A *to = c + i * p.c_row + j * W::lanes;
            W::store(to, p.add ? W::load(to) + sum[i][j] : sum[i][j]);
        }
}

template <typename A, int BYTES, int N>
VITRESNAS_INLINE void rows_of_tiles(const Product<A> &p, int64_t vector) {
    // Even blocks: 17 rows are 6 + 6 + 5, not 6 + 6 + 4 + 1, as one row alone waits for its sums.
    const int64_t blocks = (p.rows + tile_rows - 1) / tile_rows;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t row = block * p.rows / blocks;
        switch ((block + 1) * p.rows / blocks - row) {
            case 1: tile<A, BYTES, 1, N>(p, row, vector); break;
            case 2: tile<A, BYTES, 2, N>(p, row, vector); break;
            case 3: tile<A, BYTES, 3, N>(p, row, vector); break;
            case 4: tile<A, BYTES, 4, N>(p, row, vector); break;
            case 5: tile<A, BYTES, 5, N>(p, row, vector); break;
            case 6: tile<A, BYTES, 6, N>(p, row, vector); break;
        }
    }
}

template <typename A, int BYTES> VITRESNAS_INLINE void multiply(const Product<A> &p) {
    constexpr int widest = BYTES == 64 ? 4 : 2;
    const int64_t blocks = (p.vectors + widest - 1) / widest;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t vector = block * p.vectors / blocks;
        const int64_t width = (block + 1) * p.vectors / blocks - vector;
        if (width == 1) rows_of_tiles<A, BYTES, 1>(p, vector);
        if (width == 2) rows_of_tiles<A, BYTES, 2>(p, vector);
        if constexpr (widest == 4) {
            if (width == 3) rows_of_tiles<A, BYTES, 3>(p, vector);
            if (width == 4) rows_of_tiles<A, BYTES, 4>(p, vector);
        }
    }
}

}  // namespace vitresnas
