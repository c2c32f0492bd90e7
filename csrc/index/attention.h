// Where everything of the attention kernels lies: problems on blocks, rows in shared memory, lanes on
// tiles. Plain constexpr arithmetic that g++ compiles too; tests/ops/test_attention_index.py goes
// through all of it by brute force.
//
// A problem is one (image, head). Its matrices (T tokens x D columns of 2 bytes) lie in shared memory
// whole; tensor cores read them in strips of 16 rows. T = 16 n + 1 leaves a last strip of one row:
// lanes beyond it read that row again (finite values whose products are masked or dropped), and write
// to a spare row T, so that no memory is padded and nothing has to be cleared.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define VITRESNAS_BOTH __host__ __device__
#else
#define VITRESNAS_BOTH
#endif

namespace attention {

constexpr int LANES = 32;
constexpr int STRIP = 16;  // rows of a tile of mma.m16n8k16
constexpr int CHUNK = 16;  // bytes that one lane copies, or points ldmatrix at

constexpr VITRESNAS_BOTH int least(int a, int b) { return a < b ? a : b; }
constexpr VITRESNAS_BOTH int divide_up(int a, int b) { return (a + b - 1) / b; }

// A matrix of 2-byte elements in shared memory. Chunks of a row change places so that eight rows at
// one chunk, which is what a phase of ldmatrix reads, fall into eight different bank groups.
template <int COLUMNS> struct Matrix {
    static_assert(COLUMNS % 16 == 0, "rows are whole pairs of chunks");
    static constexpr int CHUNKS = COLUMNS / 8;
    static constexpr int PITCH = COLUMNS * 2;  // bytes

    // Depends on the row modulo 8 alone, and never leads out of an aligned group of 8, 4 or 2 chunks.
    static constexpr VITRESNAS_BOTH int swizzle(int row) {
        return CHUNKS % 8 == 0 ? row & 7 : CHUNKS % 4 == 0 ? row >> 1 & 3 : row >> 2 & 1;
    }
    static constexpr VITRESNAS_BOTH int offset(int row, int chunk) {
        return row * PITCH + (chunk ^ swizzle(row)) * CHUNK;
    }
};

template <int T_, int D_> struct Shape {
    static constexpr int T = T_, D = D_;
    static_assert(T > STRIP && D % 16 == 0, "at least two strips; heads of whole tiles");
    using Rows = Matrix<D>;
    static constexpr int STRIPS = divide_up(T, STRIP);
    static constexpr int TAIL = T - STRIP * (STRIPS - 1);  // rows of the last strip that exist
    static constexpr int KEY_TILES = divide_up(T, 8);      // of 8 keys: columns of the scores
    static constexpr int PAIRS = D / 16;                   // of chunks: steps of a product over D
    static constexpr int BYTES = (T + 1) * Rows::PITCH;    // the spare row included

    // The row, within its strip, that a lane reads in place of `row`.
    static constexpr VITRESNAS_BOTH int readable(int strip, int row) {
        return strip == STRIPS - 1 ? least(row, TAIL - 1) : row;
    }
    // The same for writing: TAIL is the spare row.
    static constexpr VITRESNAS_BOTH int writable(int strip, int row) {
        return strip == STRIPS - 1 ? least(row, TAIL) : row;
    }
    static constexpr VITRESNAS_BOTH bool exists(int strip, int row) {
        return strip * STRIP + row < T;
    }
};

// Which row and chunk of a 16 x 16 tile a lane points ldmatrix.x4 (stmatrix.x4) at; lanes 8 i to
// 8 i + 7 give the rows of the 8 x 8 matrix that arrives in register i.
struct Place {
    int row, chunk;
};
// Register order (rows 0-7, 8-15) then next chunk: an A operand, or with .trans a B operand whose
// contraction runs over rows.
constexpr VITRESNAS_BOTH Place rows_first(int lane) { return {lane % 16, lane / 16}; }
// Register order (chunk 0, 1) then next rows: two B operands whose contraction runs over columns, or
// with .trans an A operand of the transposed tile.
constexpr VITRESNAS_BOTH Place chunks_first(int lane) {
    return {lane % 8 + lane / 16 * 8, lane / 8 % 2};
}

// Where element `i` of a lane's accumulator of mma.m16n8 lies in the 16 x 8 tile.
constexpr VITRESNAS_BOTH int fragment_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
constexpr VITRESNAS_BOTH int fragment_column(int lane, int i) { return lane % 4 * 2 + i % 2; }

// Problems of one image are neighbours: its heads share cache lines of the packed rows.
struct Problem {
    int image, head;
};
constexpr VITRESNAS_BOTH Problem problem(int index, int heads) {
    return {index / heads, index % heads};
}

// How blocks are cut. MIN_BLOCKS is what registers are held to per multiprocessor.
template <int T, int D> struct ForwardPlan {
    using S = Shape<T, D>;
    static constexpr int PROBLEMS = T > 32 ? 1 : 4;                      // per block
    static constexpr int WARPS = T > 128 ? 6 : T > 32 ? S::STRIPS : 1;   // per problem
    static constexpr int MIN_BLOCKS = T > 128 ? (D > 32 ? 1 : 2) : T > 32 ? (D > 48 ? 3 : 4) : 6;
    static constexpr int THREADS = PROBLEMS * WARPS * LANES;
    static constexpr int K = S::BYTES, V = 2 * S::BYTES;  // Q lies at 0
    static constexpr int PROBLEM_BYTES = 3 * S::BYTES;
    static constexpr int SHARED_BYTES = PROBLEMS * PROBLEM_BYTES;
};

template <int T, int D> struct BackwardPlan {
    using S = Shape<T, D>;
    static constexpr int PROBLEMS = T > 32 ? 1 : 4;
    static constexpr int WARPS = T > 32 ? S::STRIPS : 1;  // per problem; each one strip of keys
    static constexpr int ROUNDS = S::STRIPS / WARPS;
    static_assert(WARPS * ROUNDS == S::STRIPS, "rounds end with all warps");
    static constexpr int BLOCK = least(8, S::STRIPS);  // strips of queries per block of dS
    static constexpr int BLOCKS = divide_up(S::STRIPS, BLOCK);
    static_assert(ROUNDS == 1 || BLOCKS == 1, "dQ needs all keys of a block of queries at once");
    static constexpr int UNIT = T > 128 ? 1 : S::PAIRS;  // pairs of columns of dQ per warp
    static constexpr int UNITS = S::PAIRS / UNIT;        // per strip of queries
    static_assert(UNITS * UNIT == S::PAIRS, "units cut the columns evenly");
    static constexpr int MIN_BLOCKS = T > 128 ? 1 : 3;
    static constexpr bool HOLD = D < 64 && T < 128;  // K and V of a warp's keys stay in registers

    static constexpr VITRESNAS_BOTH int keys(int round, int warp) { return round * WARPS + warp; }
    static constexpr VITRESNAS_BOTH int strips(int block) {
        return least(BLOCK, S::STRIPS - block * BLOCK);
    }
    static constexpr VITRESNAS_BOTH int unit_strip(int unit) { return unit / UNITS; }
    static constexpr VITRESNAS_BOTH int unit_pair(int unit) { return unit % UNITS * UNIT; }
    static constexpr int THREADS = PROBLEMS * WARPS * LANES;

    using Scores = Matrix<BLOCK * STRIP>;  // dS transposed: a row per key, a column per query
    static constexpr int K = S::BYTES, V = 2 * S::BYTES, DOUT = 3 * S::BYTES;  // Q lies at 0
    static constexpr int SCORES = 4 * S::BYTES;
    static constexpr int STATISTICS = SCORES + S::STRIPS * STRIP * Scores::PITCH;
    static constexpr int PROBLEM_BYTES = STATISTICS + S::STRIPS * STRIP * 8;
    static constexpr int SHARED_BYTES = PROBLEMS * PROBLEM_BYTES;
};

}  // namespace attention
