// out = softmax(scale Q K^T) V of one head. A warp takes strips of 16 queries; all T scores of a
// query stay in registers, so the softmax is one pass and exact tiles waste little.
#pragma once

#include "cuda/variable_attention_tiles.cuh"

namespace attention {

template <int T, int D, class Element>
VITRESNAS_DEVICE void forward(const AttentionForward &a) {
    using S = Shape<T, D>;
    using Plan = ForwardPlan<T, D>;
    const Worker<Plan> me(a.sizes, a.heads);
    if (!me.active) return;

    Shared q = me.shared, k = me.shared + Plan::K, v = me.shared + Plan::V;
    const auto *qkv = static_cast<const uint16_t *>(a.qkv);
    const int pitch = 3 * a.sizes.heads * D;
    const auto part = [&](int i) {
        return qkv + head_begin<S>(a.sizes, me.image, me.head, 3, i);
    };
    copy_rows<S, Plan>(q, part(0), pitch, me.member);
    copy_rows<S, Plan>(k, part(1), pitch, me.member);
    gpu::commit_copies();
    copy_rows<S, Plan>(v, part(2), pitch, me.member);
    gpu::commit_copies();
    gpu::wait_copies<1>();
    me.sync();

    const float factor = a.sizes.scale * LOG2_E;
    static_assert(S::STRIPS >= Plan::WARPS, "every warp waits for V once");
    VITRESNAS_ROLLED
    for (int strip = me.warp; strip < S::STRIPS; strip += Plan::WARPS) {
        int lane = me.lane_again();
        Words query[S::PAIRS];
        VITRESNAS_UNROLL
        for (int pair = 0; pair < S::PAIRS; ++pair)
            query[pair] = gpu::load_matrices(tile<S>(q, strip, pair, rows_first(lane)));

        // An even number of tiles of 8 keys; one beyond KEY_TILES is never computed and stays 0.
        float score[2 * S::STRIPS][4];
        VITRESNAS_UNROLL
        for (int keys = S::STRIPS - 1; keys >= 0; --keys) {  // the odd one first, then no more of it
            VITRESNAS_UNROLL
            for (int i = 0; i < 4; ++i) score[2 * keys][i] = score[2 * keys + 1][i] = 0;
            VITRESNAS_UNROLL
            for (int pair = 0; pair < S::PAIRS; ++pair) {
                const Words b = gpu::load_matrices(tile<S>(k, keys, pair, chunks_first(lane)));
                Element::multiply(score[2 * keys], query[pair], b.word[0], b.word[1]);
                if (2 * keys + 1 < S::KEY_TILES)
                    Element::multiply(score[2 * keys + 1], query[pair], b.word[2], b.word[3]);
            }
        }
        constexpr int LAST = S::KEY_TILES - 1;
        VITRESNAS_UNROLL
        for (int i = 0; i < 4; ++i)
            if (LAST * 8 + fragment_column(lane, i) >= T) score[LAST][i] = -INFINITY;

        // Element i of every tile belongs to row i / 2 of the two that a lane shares with its quad.
        float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
        VITRESNAS_UNROLL
        for (int n = 0; n < S::KEY_TILES; ++n)
            VITRESNAS_UNROLL
            for (int i = 0; i < 4; ++i) most[i / 2] = fmaxf(most[i / 2], score[n][i]);
        VITRESNAS_UNROLL
        for (int r = 0; r < 2; ++r) {
            most[r] = fmaxf(most[r], gpu::shuffle_xor(most[r], 1));
            most[r] = fmaxf(most[r], gpu::shuffle_xor(most[r], 2)) * factor;
        }
        VITRESNAS_UNROLL
        for (int n = 0; n < S::KEY_TILES; ++n)
            VITRESNAS_UNROLL
            for (int i = 0; i < 4; ++i) {
                score[n][i] = gpu::exp2_approximate(fmaf(score[n][i], factor, -most[i / 2]));
                sum[i / 2] += score[n][i];
            }
        VITRESNAS_UNROLL
        for (int r = 0; r < 2; ++r) {
            sum[r] += gpu::shuffle_xor(sum[r], 1);
            sum[r] += gpu::shuffle_xor(sum[r], 2);
        }

        if (strip < Plan::WARPS) {
            gpu::wait_copies<0>();
            me.sync();
        }
        lane = me.lane_again();
        float out[2 * S::PAIRS][4] = {};
        VITRESNAS_UNROLL
        for (int keys = 0; keys < S::STRIPS; ++keys) {
            const Words p = packed<Element>(score[2 * keys], score[2 * keys + 1]);
            VITRESNAS_UNROLL
            for (int pair = 0; pair < S::PAIRS; ++pair) {
                const Words b =
                    gpu::load_matrices_transposed(tile<S>(v, keys, pair, rows_first(lane)));
                Element::multiply(out[2 * pair], p, b.word[0], b.word[1]);
                Element::multiply(out[2 * pair + 1], p, b.word[2], b.word[3]);
            }
        }
        VITRESNAS_UNROLL
        for (int n = 0; n < 2 * S::PAIRS; ++n)
            VITRESNAS_UNROLL
            for (int i = 0; i < 4; ++i) out[n][i] *= 1.0f / sum[i / 2];

        lane = me.lane_again();
        const Problem mine = me.problem_again(a.sizes);
        write_strip<S, Element, S::PAIRS>(
            out, 1.0f, q, strip, 0,
            static_cast<uint16_t *>(a.out) + head_begin<S>(a.sizes, mine.image, mine.head, 1, 0),
            static_cast<int64_t>(a.sizes.heads) * D, lane);
        VITRESNAS_UNROLL
        for (int r = 0; r < 2; ++r) {
            const int row = fragment_row(lane, 2 * r);
            if (lane % 4 == 0 && S::exists(strip, row))
                gpu::store_global(
                    a.lse + (static_cast<int64_t>(mine.image) * a.sizes.heads + mine.head) * T +
                        strip * STRIP + row,
                    (most[r] + gpu::log2_approximate(sum[r])) * LN_2);
        }
    }
}

}  // namespace attention
