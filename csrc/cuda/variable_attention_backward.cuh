// dQ, dK, dV of one head in five products, without atomics:
//
//     P = exp(scale Q K^T - lse)      dV = P^T dO       delta = rowsum(dO * O)
//     dS = P * (dO V^T - delta)       dK = scale dS^T Q      dQ = scale dS K
//
// A warp owns a strip of 16 keys and holds its dK and dV; transposed scores (keys x queries) come out
// of the tensor cores laid out as they enter them again. Only dQ sums over keys, hence over
// warps: dS of a block of queries passes through shared memory, where each warp then owns queries.
#pragma once

#include "cuda/variable_attention_tiles.cuh"

namespace attention {

// lse (in powers of 2) and delta side by side for every query, each row by one thread. Queries beyond
// T get an lse of infinity: their P, hence dS, is exactly 0. O is on its way while copies arrive.
template <class S, class Plan>
VITRESNAS_DEVICE void write_statistics(const Worker<Plan> &me, const AttentionBackward &a) {
    constexpr int THREADS = Plan::WARPS * LANES, EACH = divide_up(S::STRIPS * STRIP, THREADS);
    Words out[EACH][S::Rows::CHUNKS];
    float lse[EACH] = {};
    VITRESNAS_UNROLL
    for (int n = 0; n < EACH; ++n) {
        const int row = n * THREADS + me.member;
        if (row >= S::T) continue;
        const auto *from = static_cast<const uint16_t *>(a.out) +
                           head_begin<S>(a.sizes, me.image, me.head, 1, 0) +
                           static_cast<int64_t>(row) * a.sizes.heads * S::D;
        VITRESNAS_UNROLL
        for (int chunk = 0; chunk < S::Rows::CHUNKS; ++chunk)
            out[n][chunk] = gpu::load_global(static_cast<const void *>(from + chunk * 8));
        lse[n] = gpu::load_global(
            a.lse + (static_cast<int64_t>(me.image) * a.sizes.heads + me.head) * S::T + row);
    }
    gpu::wait_copies<0>();
    me.sync();
    VITRESNAS_UNROLL
    for (int n = 0; n < EACH; ++n) {
        const int row = n * THREADS + me.member;
        const Shared dout = me.shared + Plan::DOUT, to = me.shared + Plan::STATISTICS + row * 8;
        if (row < S::T) {
            float delta = 0;
            VITRESNAS_UNROLL
            for (int chunk = 0; chunk < S::Rows::CHUNKS; ++chunk) {
                const Words d = gpu::load_shared(dout + S::Rows::offset(row, chunk));
                const Words &o = out[n][chunk];
                VITRESNAS_UNROLL
                for (int i = 0; i < 4; ++i) {
                    using Element = typename Plan::Element;
                    delta = fmaf(Element::low(d.word[i]), Element::low(o.word[i]), delta);
                    delta = fmaf(Element::high(d.word[i]), Element::high(o.word[i]), delta);
                }
            }
            gpu::store_shared(to, lse[n] * LOG2_E, delta);
        } else if (row < S::STRIPS * STRIP) {
            gpu::store_shared(to, INFINITY, 0);
        }
    }
    me.sync();
}

// dQ of a block of queries from its dS in shared memory. A unit is one strip of queries and some
// pairs of columns; its rows of Q are not read again, and serve to write 16 bytes at a time.
template <class S, class Plan>
VITRESNAS_DEVICE void write_dq(const Worker<Plan> &me, const AttentionBackward &a, int block,
                               uint16_t *dq, int pitch) {
    const int lane = me.lane_again();
    const Shared k = me.shared + Plan::K, ds = me.shared + Plan::SCORES;
    VITRESNAS_ROLLED
    for (int unit = me.warp_again(); unit < Plan::strips(block) * Plan::UNITS; unit += Plan::WARPS) {
        const int strip = Plan::unit_strip(unit), first = Plan::unit_pair(unit);
        float c[2 * Plan::UNIT][4] = {};
        VITRESNAS_UNROLL_FOUR
        for (int keys = 0; keys < S::STRIPS; ++keys) {
            const Place place = chunks_first(lane);
            const Words p = gpu::load_matrices_transposed(
                ds + keys * STRIP * Plan::Scores::PITCH +
                Plan::Scores::offset(place.row, strip * 2 + place.chunk));
            VITRESNAS_UNROLL
            for (int pair = 0; pair < Plan::UNIT; ++pair) {
                const Words b = gpu::load_matrices_transposed(
                    tile<S>(k, keys, first + pair, rows_first(lane)));
                Plan::Element::multiply(c[2 * pair], p, b.word[0], b.word[1]);
                Plan::Element::multiply(c[2 * pair + 1], p, b.word[2], b.word[3]);
            }
        }
        write_strip<S, typename Plan::Element, Plan::UNIT>(c, a.sizes.scale, me.shared,
                                                           block * Plan::BLOCK + strip, first, dq,
                                                           pitch, lane);
    }
}

template <int T, int D, class Element_> struct TypedBackwardPlan : BackwardPlan<T, D> {
    using Element = Element_;
};

template <int T, int D, class Element>
VITRESNAS_DEVICE void backward(const AttentionBackward &a) {
    using S = Shape<T, D>;
    using Plan = TypedBackwardPlan<T, D, Element>;
    const Worker<Plan> me(a.sizes, a.heads);
    if (!me.active) return;

    const Shared q = me.shared, k = me.shared + Plan::K, v = me.shared + Plan::V;
    const Shared dout = me.shared + Plan::DOUT, ds = me.shared + Plan::SCORES;
    const int pitch = 3 * a.sizes.heads * D;
    const auto *qkv = static_cast<const uint16_t *>(a.qkv);
    VITRESNAS_UNROLL
    for (int part = 0; part < 3; ++part)
        copy_rows<S, Plan>(q + part * S::BYTES,
                           qkv + head_begin<S>(a.sizes, me.image, me.head, 3, part), pitch,
                           me.member);
    copy_rows<S, Plan>(dout,
                       static_cast<const uint16_t *>(a.dout) +
                           head_begin<S>(a.sizes, me.image, me.head, 1, 0),
                       a.sizes.heads * D, me.member);
    gpu::commit_copies();
    write_statistics<S, Plan>(me, a);

    const float factor = a.sizes.scale * LOG2_E;
    const auto gradient = [&](int part) {
        const Problem mine = me.problem_again(a.sizes);
        return static_cast<uint16_t *>(a.dqkv) +
               head_begin<S>(a.sizes, mine.image, mine.head, 3, part);
    };
    VITRESNAS_ROLLED
    for (int round = 0; round < Plan::ROUNDS; ++round) {
        const int keys = Plan::keys(round, me.warp);  // the strip of keys this warp owns
        Words key[S::PAIRS], value[S::PAIRS];  // of its rows, where registers suffice
        const auto load = [&](int pair, int lane) {
            key[pair] = gpu::load_matrices(tile<S>(k, keys, pair, rows_first(lane)));
            value[pair] = gpu::load_matrices(tile<S>(v, keys, pair, rows_first(lane)));
        };
        VITRESNAS_UNROLL
        for (int pair = 0; pair < S::PAIRS; ++pair)
            if constexpr (Plan::HOLD) load(pair, me.lane);
        float dk[2 * S::PAIRS][4] = {}, dv[2 * S::PAIRS][4] = {};
        VITRESNAS_ROLLED
        for (int block = 0; block < Plan::BLOCKS; ++block) {
            VITRESNAS_ROLLED
            for (int queries = block * Plan::BLOCK;
                 queries < block * Plan::BLOCK + Plan::strips(block); ++queries) {
                const int local = queries % Plan::BLOCK;
                const int lane = me.lane_again();
                // Transposed scores and dP of 16 queries, then P and dS.
                float p[2][4] = {}, dp[2][4] = {};
                VITRESNAS_UNROLL
                for (int pair = 0; pair < S::PAIRS; ++pair) {
                    if constexpr (!Plan::HOLD) load(pair, lane);
                    const Place place = chunks_first(lane);
                    const Words b = gpu::load_matrices(tile<S>(q, queries, pair, place));
                    Element::multiply(p[0], key[pair], b.word[0], b.word[1]);
                    Element::multiply(p[1], key[pair], b.word[2], b.word[3]);
                    const Words d = gpu::load_matrices(tile<S>(dout, queries, pair, place));
                    Element::multiply(dp[0], value[pair], d.word[0], d.word[1]);
                    Element::multiply(dp[1], value[pair], d.word[2], d.word[3]);
                }
                VITRESNAS_UNROLL
                for (int n = 0; n < 2; ++n) {
                    // lse and delta of this lane's two queries of the tile
                    const Words known =
                        gpu::load_shared(me.shared + Plan::STATISTICS +
                                         (queries * STRIP + n * 8 + lane % 4 * 2) * 8);
                    VITRESNAS_UNROLL
                    for (int i = 0; i < 4; ++i) {
                        const float lse = gpu::as_float(known.word[i % 2 * 2]);
                        const float delta = gpu::as_float(known.word[i % 2 * 2 + 1]);
                        p[n][i] = gpu::exp2_approximate(fmaf(p[n][i], factor, -lse));
                        dp[n][i] = p[n][i] * (dp[n][i] - delta);
                        // Keys beyond T must not reach dQ.
                        if (keys == S::STRIPS - 1 && fragment_row(lane, i) >= S::TAIL)
                            dp[n][i] = 0;
                    }
                }
                // Accumulators are laid out as A operands: P^T and dS^T of 16 keys x 16 queries.
                const Words weights = packed<Element>(p[0], p[1]);
                const Words slopes = packed<Element>(dp[0], dp[1]);
                const Place place = rows_first(lane);
                gpu::store_matrices(
                    ds + keys * STRIP * Plan::Scores::PITCH +
                        Plan::Scores::offset(place.row, local * 2 + place.chunk),
                    slopes);
                VITRESNAS_UNROLL
                for (int pair = 0; pair < S::PAIRS; ++pair) {
                    const Words d =
                        gpu::load_matrices_transposed(tile<S>(dout, queries, pair, place));
                    Element::multiply(dv[2 * pair], weights, d.word[0], d.word[1]);
                    Element::multiply(dv[2 * pair + 1], weights, d.word[2], d.word[3]);
                    const Words b = gpu::load_matrices_transposed(tile<S>(q, queries, pair, place));
                    Element::multiply(dk[2 * pair], slopes, b.word[0], b.word[1]);
                    Element::multiply(dk[2 * pair + 1], slopes, b.word[2], b.word[3]);
                }
            }
            if constexpr (Plan::BLOCKS > 1) {
                me.sync();
                write_dq<S, Plan>(me, a, block, gradient(0), pitch);
                if (block + 1 < Plan::BLOCKS) me.sync();
            }
        }
        // Only this warp reads its rows of V, and it is done with them.
        const int lane = me.lane_again();
        write_strip<S, Element, S::PAIRS>(dv, 1.0f, v, keys, 0, gradient(2), pitch, lane);
        write_strip<S, Element, S::PAIRS>(dk, a.sizes.scale, v, keys, 0, gradient(1), pitch,
                                          lane);
    }
    if constexpr (Plan::BLOCKS == 1) {  // after all rounds, when registers are free again
        me.sync();
        write_dq<S, Plan>(me, a, 0, gradient(0), pitch);
    }
}

}  // namespace attention
