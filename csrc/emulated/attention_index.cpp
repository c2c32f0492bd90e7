// index/attention.h for the tests to go through.

#include "index/attention.h"

using namespace attention;

namespace {

template <int COLUMNS> int offset(int row, int chunk) {
    return Matrix<COLUMNS>::offset(row, chunk);
}

template <class F> void for_shape(int tokens, int head_dim, F &&f) {
    const auto of = [&](auto shape) {
        using S = decltype(shape);
        if (tokens == S::T && head_dim == S::D) f(shape);
    };
    of(Shape<257, 32>{}), of(Shape<65, 32>{}), of(Shape<65, 48>{}), of(Shape<65, 64>{});
    of(Shape<17, 32>{}), of(Shape<17, 48>{}), of(Shape<17, 64>{});
}

}  // namespace

extern "C" {

int matrix_offset(int columns, int row, int chunk) {
    switch (columns) {
        case 16: return offset<16>(row, chunk);
        case 32: return offset<32>(row, chunk);
        case 48: return offset<48>(row, chunk);
        case 64: return offset<64>(row, chunk);
        case 80: return offset<80>(row, chunk);
        default: return -1;
    }
}

void lane_places(int lane, int *rows_first_row, int *rows_first_chunk, int *chunks_first_row,
                 int *chunks_first_chunk) {
    const Place rows = rows_first(lane), chunks = chunks_first(lane);
    *rows_first_row = rows.row, *rows_first_chunk = rows.chunk;
    *chunks_first_row = chunks.row, *chunks_first_chunk = chunks.chunk;
}

void fragment_place(int lane, int i, int *row, int *column) {
    *row = fragment_row(lane, i), *column = fragment_column(lane, i);
}

void problem_of(int index, int heads, int *image, int *head) {
    const Problem found = problem(index, heads);
    *image = found.image, *head = found.head;
}

// Rows as a strip of `tokens` is read, written and stored.
void strip_row(int tokens, int head_dim, int strip, int row, int *readable, int *writable,
               int *exists) {
    for_shape(tokens, head_dim, [&](auto shape) {
        using S = decltype(shape);
        *readable = strip * STRIP + S::readable(strip, row);
        *writable = strip * STRIP + S::writable(strip, row);
        *exists = S::exists(strip, row);
    });
}

// How often the schedules cover each strip of keys (backward), strip of queries (forward), and each
// strip and pair of columns of dQ; `covered` holds 2 * strips + strips * pairs counts.
int coverage(int tokens, int head_dim, int *covered) {
    int strips = 0;
    for_shape(tokens, head_dim, [&](auto shape) {
        using S = decltype(shape);
        using F = ForwardPlan<S::T, S::D>;
        using B = BackwardPlan<S::T, S::D>;
        strips = S::STRIPS;
        for (int warp = 0; warp < F::WARPS; ++warp)
            for (int strip = warp; strip < S::STRIPS; strip += F::WARPS) ++covered[strip];
        for (int warp = 0; warp < B::WARPS; ++warp)
            for (int round = 0; round < B::ROUNDS; ++round)
                ++covered[S::STRIPS + B::keys(round, warp)];
        for (int block = 0; block < B::BLOCKS; ++block)
            for (int warp = 0; warp < B::WARPS; ++warp)
                for (int unit = warp; unit < B::strips(block) * B::UNITS; unit += B::WARPS)
                    for (int pair = 0; pair < B::UNIT; ++pair)
                        ++covered[2 * S::STRIPS +
                                  (block * B::BLOCK + B::unit_strip(unit)) * S::PAIRS +
                                  B::unit_pair(unit) + pair];
    });
    return strips;
}

// Warps per block, threads and shared bytes; the end of each region of shared memory must not lie
// beyond the next one's begin.
void plan(int tokens, int head_dim, int backward, int *threads, int *blocks, int *shared_bytes) {
    for_shape(tokens, head_dim, [&](auto shape) {
        using S = decltype(shape);
        using F = ForwardPlan<S::T, S::D>;
        using B = BackwardPlan<S::T, S::D>;
        *threads = backward ? B::THREADS : F::THREADS;
        *blocks = backward ? B::MIN_BLOCKS : F::MIN_BLOCKS;
        *shared_bytes = backward ? B::SHARED_BYTES : F::SHARED_BYTES;
        static_assert(B::PROBLEM_BYTES % 16 == 0 && F::PROBLEM_BYTES % 16 == 0, "copies align");
    });
}
}
