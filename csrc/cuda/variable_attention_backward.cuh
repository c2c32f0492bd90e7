// dQ, dK, dV of one head in five products, without atomics:
//
//     P = exp(scale Q K^T - lse)      dV = P^T dO       delta = rowsum(dO * O)
//     dS = P * (dO V^T - delta)       dK = scale dS^T Q      dQ = scale dS K
//
// Warps own strips of 16 keys and hold dK and dV of them; transposed scores (keys x queries) come
// out of the tensor cores laid out as they enter them again. Only dQ sums over keys, hence over
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
                               uint16_t *dq, int64_t pitch) {
    const Shared k = me.shared + Plan::K, ds = me.shared + Plan::SCORES;
    VITRESNAS_ROLLED
    for (int unit = me.warp; unit < Plan::strips(block) * Plan::UNITS; unit += Plan::WARPS) {
        const int strip = Plan::unit_strip(unit), first = Plan::unit_pair(unit);
        float c[2 * Plan::UNIT][4] = {};
        VITRESNAS_UNROLL
        for (int keys = 0; keys < S::STRIPS; ++keys) {
            const Place place = chunks_first(me.lane);
            const Words p = gpu::load_matrices_transposed(
                ds + keys * STRIP * Plan::Scores::PITCH +
                Plan::Scores::offset(place.row, strip * 2 + place.chunk));
            VITRESNAS_UNROLL
            for (int pair = 0; pair < Plan::UNIT; ++pair) {
                const Words b = gpu::load_matrices_transposed(
                    tile<S>(k, keys, first + pair, rows_first(me.lane)));
                Plan::Element::multiply(c[2 * pair], p, b.word[0], b.word[1]);
                Plan::Element::multiply(c[2 * pair + 1], p, b.word[2], b.word[3]);
            }
        }
        write_strip<S, typename Plan::Element, Plan::UNIT>(c, a.sizes.scale, me.shared,
                                                           block * Plan::BLOCK + strip, first, dq,
                                                           pitch, me.lane);
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
    const int64_t pitch = static_cast<int64_t>(3) * a.sizes.heads * D;
    const auto *qkv = static_cast<const uint16_t *>(a.qkv);
    VITRESNAS_UNROLL
    for (int part = 0; part < 3; ++part)
        copy_rows<S, Plan>(q + part * S::BYTES,
                           qkv + head_begin<S>(a.sizes, me.image, me.head, 3, part), pitch,
                           me.member);
    copy_rows<S, Plan>(dout,
                       static_cast<const uint16_t *>(a.dout) +
                           head_begin<S>(a.sizes, me.image, me.head, 1, 0),
                       static_cast<int64_t>(a.sizes.heads) * D, me.member);
    gpu::commit_copies();
    write_statistics<S, Plan>(me, a);

    const float factor = a.sizes.scale * LOG2_E;
    const auto gradient = [&](int part) {
        return static_cast<uint16_t *>(a.dqkv) +
               head_begin<S>(a.sizes, me.image, me.head, 3, part);
    };
    constexpr int HELD = Plan::AT_ONCE;
    VITRESNAS_ROLLED
    for (int round = 0; round < Plan::ROUNDS; ++round) {
        const int begin = Plan::first_keys(round, me.warp);
        float dk[HELD][2 * S::PAIRS][4] = {}, dv[HELD][2 * S::PAIRS][4] = {};
        VITRESNAS_ROLLED
        for (int block = 0; block < Plan::BLOCKS; ++block) {
            VITRESNAS_ROLLED
            for (int local = 0; local < Plan::strips(block); ++local) {
                const int queries = block * Plan::BLOCK + local;
                const int lane = gpu::forgotten(me.lane);
                // Scores and dP of 16 queries, then P and dS in bf16, laid out as A operands.
                float s[HELD][2][4] = {}, dp[HELD][2][4] = {};
                VITRESNAS_UNROLL
                for (int pair = 0; pair < S::PAIRS; ++pair) {
                    const Words b =
                        gpu::load_matrices(tile<S>(q, queries, pair, chunks_first(lane)));
                    VITRESNAS_UNROLL
                    for (int held = 0; held < HELD; ++held) {
                        if (begin + held >= S::STRIPS) continue;
                        const Words a_ = gpu::load_matrices(
                            tile<S>(k, begin + held, pair, rows_first(lane)));
                        Element::multiply(s[held][0], a_, b.word[0], b.word[1]);
                        Element::multiply(s[held][1], a_, b.word[2], b.word[3]);
                    }
                }
                VITRESNAS_UNROLL
                for (int pair = 0; pair < S::PAIRS; ++pair) {
                    const Words b =
                        gpu::load_matrices(tile<S>(dout, queries, pair, chunks_first(lane)));
                    VITRESNAS_UNROLL
                    for (int held = 0; held < HELD; ++held) {
                        if (begin + held >= S::STRIPS) continue;
                        const Words a_ = gpu::load_matrices(
                            tile<S>(v, begin + held, pair, rows_first(lane)));
                        Element::multiply(dp[held][0], a_, b.word[0], b.word[1]);
                        Element::multiply(dp[held][1], a_, b.word[2], b.word[3]);
                    }
                }
                Words p[HELD], dsp[HELD];
                VITRESNAS_UNROLL
                for (int n = 0; n < 2; ++n) {
                    // lse and delta of this lane's two queries of the tile
                    const Words known =
                        gpu::load_shared(me.shared + Plan::STATISTICS +
                                         (queries * STRIP + n * 8 + lane % 4 * 2) * 8);
                    VITRESNAS_UNROLL
                    for (int held = 0; held < HELD; ++held)
                        VITRESNAS_UNROLL
                        for (int i = 0; i < 4; ++i) {
                            const float lse = gpu::as_float(known.word[i % 2 * 2]);
                            const float delta = gpu::as_float(known.word[i % 2 * 2 + 1]);
                            s[held][n][i] =
                                gpu::exp2_approximate(fmaf(s[held][n][i], factor, -lse));
                            dp[held][n][i] = s[held][n][i] * (dp[held][n][i] - delta);
                        }
                }
                VITRESNAS_UNROLL
                for (int held = 0; held < HELD; ++held) {
                    if (begin + held >= S::STRIPS) continue;
                    if (begin + held == S::STRIPS - 1) {  // keys beyond T must not reach dQ
                        VITRESNAS_UNROLL
                        for (int i = 0; i < 4; ++i)
                            if (fragment_row(lane, i) >= S::TAIL)
                                dp[held][0][i] = dp[held][1][i] = 0;
                    }
                    p[held] = packed<Element>(s[held][0], s[held][1]);
                    dsp[held] = packed<Element>(dp[held][0], dp[held][1]);
                    const Place place = rows_first(lane);
                    gpu::store_matrices(
                        ds + (begin + held) * STRIP * Plan::Scores::PITCH +
                            Plan::Scores::offset(place.row, local * 2 + place.chunk),
                        dsp[held]);
                }
                VITRESNAS_UNROLL
                for (int pair = 0; pair < S::PAIRS; ++pair) {
                    const Words b = gpu::load_matrices_transposed(
                        tile<S>(dout, queries, pair, rows_first(lane)));
                    VITRESNAS_UNROLL
                    for (int held = 0; held < HELD; ++held) {
                        if (begin + held >= S::STRIPS) continue;
                        Element::multiply(dv[held][2 * pair], p[held], b.word[0], b.word[1]);
                        Element::multiply(dv[held][2 * pair + 1], p[held], b.word[2], b.word[3]);
                    }
                }
                VITRESNAS_UNROLL
                for (int pair = 0; pair < S::PAIRS; ++pair) {
                    const Words b = gpu::load_matrices_transposed(
                        tile<S>(q, queries, pair, rows_first(lane)));
                    VITRESNAS_UNROLL
                    for (int held = 0; held < HELD; ++held) {
                        if (begin + held >= S::STRIPS) continue;
                        Element::multiply(dk[held][2 * pair], dsp[held], b.word[0], b.word[1]);
                        Element::multiply(dk[held][2 * pair + 1], dsp[held], b.word[2], b.word[3]);
                    }
                }
            }
            if constexpr (Plan::BLOCKS > 1) {
                me.sync();
                write_dq<S, Plan>(me, a, block, gradient(0), pitch);
                if (block + 1 < Plan::BLOCKS) me.sync();
            }
        }
        // Only this warp reads its rows of V, and it is done with them.
        VITRESNAS_UNROLL
        for (int held = 0; held < HELD; ++held) {
            if (begin + held >= S::STRIPS) continue;
            write_strip<S, Element, S::PAIRS>(dv[held], 1.0f, v, begin + held, 0, gradient(2),
                                              pitch, me.lane);
            write_strip<S, Element, S::PAIRS>(dk[held], a.sizes.scale, v, begin + held, 0,
                                              gradient(1), pitch, me.lane);
        }
    }
    if constexpr (Plan::BLOCKS == 1) {  // after all rounds, when registers are free again
        me.sync();
        write_dq<S, Plan>(me, a, 0, gradient(0), pitch);
    }
}

}  // namespace attention
