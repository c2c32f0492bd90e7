// What forward and backward of attention share: who a warp works for, rows in and out of shared
// memory, operands of the tensor cores. Include cuda/primitives.cuh or emulated/primitives.h first.
#pragma once

#include "cuda/variable_attention.h"
#include "index/attention.h"

namespace attention {

using gpu::Shared;
using gpu::Words;

constexpr float LOG2_E = 1.44269504088896340736f;
constexpr float LN_2 = 0.69314718055994530942f;

// Who this thread works for. Warps of one problem are neighbours, and blocks with several problems
// give one warp to each, so that a warp without work may leave and nobody waits for it.
template <class Plan> struct Worker {
    int lane, warp, member;  // warp and thread within the problem
    int image, head;
    bool active;
    Shared shared;  // where the problem's memory begins

    VITRESNAS_DEVICE Worker(const AttentionSizes &sizes, const int32_t *heads) {
        static_assert(Plan::PROBLEMS == 1 || Plan::WARPS == 1, "see sync");
        // Written out for the compiler, which does not know how many threads there are.
        const int slot = Plan::PROBLEMS == 1 ? 0 : gpu::thread() / LANES;
        const int index = gpu::block() * Plan::PROBLEMS + slot;
        lane = gpu::thread() % LANES;
        member = Plan::PROBLEMS == 1 ? gpu::thread() : lane;
        warp = member / LANES;
        shared = gpu::shared_begin() + slot * Plan::PROBLEM_BYTES;
        active = index < sizes.images * sizes.heads;
        if (!active) return;
        const Problem mine = problem(index, sizes.heads);
        image = mine.image, head = mine.head;
        active = head < gpu::load_global(heads + image / sizes.images_per_group);
    }

    // The same numbers without a register to keep them in; see gpu::thread_again.
    static VITRESNAS_DEVICE int lane_again() { return gpu::thread_again() % LANES; }
    static VITRESNAS_DEVICE int warp_again() {
        return Plan::PROBLEMS == 1 ? gpu::thread_again() / LANES : 0;
    }
    static VITRESNAS_DEVICE Problem problem_again(const AttentionSizes &sizes) {
        const int slot = Plan::PROBLEMS == 1 ? 0 : gpu::thread_again() / LANES;
        return problem(gpu::block_again() * Plan::PROBLEMS + slot, sizes.heads);
    }

    VITRESNAS_DEVICE void sync() const {
        if constexpr (Plan::WARPS == 1)
            gpu::sync_warp();
        else
            gpu::sync_block();
    }
};

// The first element of the head in a packed tensor (images, T, parts, heads, D).
template <class S>
VITRESNAS_DEVICE int64_t head_begin(const AttentionSizes &sizes, int image, int head, int parts,
                                    int part) {
    const int64_t row = static_cast<int64_t>(parts) * sizes.heads * S::D;
    return image * S::T * row + (static_cast<int64_t>(part) * sizes.heads + head) * S::D;
}

// All T rows of a head, by all threads of its problem.
template <class S, class Plan>
VITRESNAS_DEVICE void copy_rows(Shared to, const uint16_t *from, int pitch, int member) {
    constexpr int CHUNKS = S::Rows::CHUNKS, ALL = S::T * CHUNKS, THREADS = Plan::WARPS * LANES;
    VITRESNAS_UNROLL
    for (int n = 0; n < divide_up(ALL, THREADS); ++n) {
        const int i = n * THREADS + member, row = i / CHUNKS, chunk = i % CHUNKS;
        if (i < ALL)
            gpu::copy_async(to + S::Rows::offset(row, chunk),
                            from + static_cast<int64_t>(row) * pitch + chunk * 8);
    }
}

// Where a lane's row of a 16 x 16 tile lies: strip of rows, pair of chunks.
template <class S>
VITRESNAS_DEVICE Shared tile(Shared matrix, int strip, int pair, Place place) {
    const int row = S::readable(strip, place.row);
    return matrix + strip * STRIP * S::Rows::PITCH + S::Rows::offset(row, pair * 2 + place.chunk);
}

// The accumulators of two neighbouring 16 x 8 tiles as one A operand, or as one 16 x 16 tile.
template <class Element>
VITRESNAS_DEVICE Words packed(const float (&left)[4], const float (&right)[4]) {
    return {{Element::pack(left[0], left[1]), Element::pack(left[2], left[3]),
             Element::pack(right[0], right[1]), Element::pack(right[2], right[3])}};
}

// Accumulators times `factor` to global memory, through this warp's own rows of `matrix` so that 16
// bytes leave at a time. PAIRS pairs of chunks from `first` on; nobody may read those rows any more.
template <class S, class Element, int PAIRS>
VITRESNAS_DEVICE void write_strip(const float (&c)[2 * PAIRS][4], float factor, Shared matrix,
                                  int strip, int first, uint16_t *to, int pitch, int lane) {
    gpu::sync_warp();
    const Place place = rows_first(lane);
    const Shared rows = matrix + strip * STRIP * S::Rows::PITCH;
    VITRESNAS_UNROLL
    for (int pair = 0; pair < PAIRS; ++pair) {
        float left[4], right[4];
        VITRESNAS_UNROLL
        for (int i = 0; i < 4; ++i) {
            left[i] = c[2 * pair][i] * factor;
            right[i] = c[2 * pair + 1][i] * factor;
        }
        const int row = S::writable(strip, place.row);
        gpu::store_matrices(rows + S::Rows::offset(row, (first + pair) * 2 + place.chunk),
                            packed<Element>(left, right));
    }
    gpu::sync_warp();
    VITRESNAS_UNROLL
    for (int n = 0; n < PAIRS; ++n) {  // 16 rows of 2 chunks are 32 lanes
        const int i = n * LANES + lane;
        const int row = i / (2 * PAIRS), chunk = first * 2 + i % (2 * PAIRS);
        if (S::exists(strip, row))
            gpu::store_global(to + static_cast<int64_t>(strip * STRIP + row) * pitch + chunk * 8,
                              gpu::load_shared(rows + S::Rows::offset(row, chunk)));
    }
}

}  // namespace attention
