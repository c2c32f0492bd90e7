// Attention of short sequences on the CPU; the mathematics is in vitresnas/ops/variable_attention.py.
//
// One (image, head) at a time, all of it in the first- and second-level caches: its rows are copied
// out of the packed layout once (as float, so that bfloat16 costs two conversions and no more), the
// scores of a panel of queries are a product, their softmax happens in place, and a second product
// makes the output. 65 or 17 tokens are whole vectors of keys and one key more, the class token: its
// scores are dot products, because a vector with one key in it would cost as much as sixteen.

#include "cpu/variable_attention.h"

#include <algorithm>
#include <cmath>

#include "cpu/product.h"
#include "status.h"

namespace vitresnas {
namespace {

constexpr int64_t most_lanes = 16;
constexpr int64_t panel_numbers = 8192;  // scores of a panel: 32 KB of float
constexpr double log2e = 1.4426950408889634074;

int64_t whole(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// How one (image, head) lies in scratch. Rows of q, k, v, ... are `width` apart, rows of scores and
// of transposes `keys` apart, both padded to whole vectors.
struct Plan {
    int64_t tokens, head_dim, width, keys, panel;

    Plan(int64_t tokens, int64_t head_dim, int64_t lanes)
        : tokens(tokens), head_dim(head_dim), width(whole(head_dim, lanes)),
          keys(whole(tokens, lanes)), panel(whole(tokens, tile_rows)) {
        const int64_t fitting = panel_numbers / std::max(whole(tokens, most_lanes), most_lanes);
        panel = std::min(panel, whole(std::max<int64_t>(fitting, 1), tile_rows));
    }
    int64_t rows() const { return keys * width; }  // numbers of one copy, padded rows included
    int64_t scores() const { return panel * keys; }
};

template <typename S> struct View {  // rows of one head
    S *first;
    int64_t row;
    S *operator[](int64_t token) const { return first + token * row; }
};

// Copies rows into scratch, times `scale`, and zeros around them up to whole vectors.
template <typename W, typename S, typename A>
VITRESNAS_INLINE void gather(View<const S> from, A *to, const Plan &plan, A scale) {
    for (int64_t t = 0; t < plan.tokens; ++t, to += plan.width) {
        const S *row = from[t];
        int64_t d = 0;
        for (; d + W::lanes <= plan.head_dim; d += W::lanes) {
            W::store(to + d, W::load(row + d) * scale);
        }
        for (; d < plan.width; ++d) to[d] = d < plan.head_dim ? load(row[d]) * scale : A(0);
    }
    std::fill(to, to + (plan.keys - plan.tokens) * plan.width, A(0));
}

template <typename W, typename S, typename A>
VITRESNAS_INLINE void scatter(const A *from, S *to, int64_t head_dim, A scale) {
    int64_t d = 0;
    for (; d + W::lanes <= head_dim; d += W::lanes) W::store(to + d, W::load(from + d) * scale);
    for (; d < head_dim; ++d) store(to[d], from[d] * scale);
}

// Keys that fill whole vectors; the one or two that are left over are done by `dots`.
template <typename W> VITRESNAS_INLINE int64_t vector_keys(const Plan &plan) {
    const int64_t whole_keys = plan.tokens / W::lanes * W::lanes;
    return plan.tokens - whole_keys <= 2 ? whole_keys : plan.keys;
}

template <typename W, typename A>
VITRESNAS_INLINE void transpose(const A *rows, A *to, const Plan &plan) {
    for (int64_t t = 0; t < vector_keys<W>(plan); t += W::lanes) {
        for (int64_t d = 0; d < plan.width; d += W::lanes) {
            W::transpose(rows + t * plan.width + d, plan.width, to + d * plan.keys + t, plan.keys);
        }
    }
}

// scores[i][t] = left[i] . right[t] for `count` rows and all tokens; what pads them is unspecified.
template <typename I, typename W, typename A>
VITRESNAS_INLINE void score(const A *left, const A *right, const A *right_transposed, A *scores,
                            int64_t count, const Plan &plan) {
    const int64_t done = vector_keys<W>(plan);
    I::multiply(Product<A>{left, plan.width, 1, right_transposed, plan.keys, scores, plan.keys,
                           count, done / W::lanes, plan.head_dim, false});
    for (int64_t t = done; t < plan.tokens; ++t) {
        const A *key = right + t * plan.width;
        for (int64_t i = 0; i < count; ++i) {
            const A *row = left + i * plan.width;
            typename W::Vector sum{};
            for (int64_t d = 0; d < plan.width; d += W::lanes) {
                sum += W::load(row + d) * W::load(key + d);
            }
            scores[i * plan.keys + t] = W::sum(sum);
        }
    }
}

template <typename I, typename S, typename A = typename Accumulator<S>::type>
VITRESNAS_INLINE void forward_head(View<const S> q, View<const S> k, View<const S> v, View<S> out,
                                   A *lse, int64_t tokens, int64_t head_dim, double scale,
                                   A *scratch) {
    using W = Wide<A, I::bytes>;
    const Plan plan(tokens, head_dim, W::lanes);
    A *qs = scratch, *ks = qs + plan.rows(), *vs = ks + plan.rows(), *kt = vs + plan.rows();
    A *scores = kt + plan.rows(), *sums = scores + plan.scores();
    gather<W>(q, qs, plan, static_cast<A>(std::copysign(1.0, scale)));
    gather<W>(k, ks, plan, A(1));
    gather<W>(v, vs, plan, A(1));
    transpose<W>(ks, kt, plan);

    // exp(scale s - ..) is exp2(steep s - ..): one multiply-add, and nothing is rounded on the way.
    const A steep = static_cast<A>(std::abs(scale) * log2e);
    const int64_t final = plan.keys - W::lanes;  // the first key of the last vector
    for (int64_t first = 0; first < tokens; first += plan.panel) {
        const int64_t count = std::min(plan.panel, tokens - first);
        score<I, W>(qs + first * plan.width, ks, kt, scores, count, plan);
        for (int64_t i = 0; i < count; ++i) {
            A *row = scores + i * plan.keys;
            // In a register: numbers stored one by one could not be loaded as a vector right after.
            const auto last = W::first(plan.tokens - final, W::load(row + final), -INFINITY);
            auto most = last;
            for (int64_t t = 0; t < final; t += W::lanes) most = W::larger(most, W::load(row + t));
            const A top = W::maximum(most) * steep;
            typename W::Vector sum = W::exp2(last * steep - top);
            W::store(row + final, sum);
            for (int64_t t = 0; t < final; t += W::lanes) {
                const auto p = W::exp2(W::load(row + t) * steep - top);
                sum += p;
                W::store(row + t, p);
            }
            const A total = W::sum(sum);
            sums[i] = A(1) / total;
            lse[first + i] = (top + std::log2(total)) / static_cast<A>(log2e);
        }
        A *outs = qs + first * plan.width;  // these queries are done with
        I::multiply(Product<A>{scores, plan.keys, 1, vs, plan.width, outs, plan.width, count,
                               plan.width / W::lanes, tokens, false});
        for (int64_t i = 0; i < count; ++i) {
            scatter<W>(outs + i * plan.width, out[first + i], head_dim, sums[i]);
        }
    }
}

template <typename I, typename S, typename A = typename Accumulator<S>::type>
VITRESNAS_INLINE void backward_head(View<const S> dout, View<const S> q, View<const S> k,
                                    View<const S> v, View<const S> out, const A *lse, View<S> dq,
                                    View<S> dk, View<S> dv, int64_t tokens, int64_t head_dim,
                                    double scale, A *scratch) {
    using W = Wide<A, I::bytes>;
    const Plan plan(tokens, head_dim, W::lanes);
    const int64_t rows = plan.rows();
    A *qs = scratch, *ks = qs + rows, *vs = ks + rows, *dos = vs + rows, *kt = dos + rows;
    A *vt = kt + rows, *dks = vt + rows, *dvs = dks + rows, *dqs = dvs + rows;
    A *scores = dqs + rows, *dscores = scores + plan.scores();
    gather<W>(q, qs, plan, static_cast<A>(std::copysign(1.0, scale)));
    gather<W>(k, ks, plan, A(1));
    gather<W>(v, vs, plan, A(1));
    gather<W>(dout, dos, plan, A(1));
    transpose<W>(ks, kt, plan);
    transpose<W>(vs, vt, plan);

    const A steep = static_cast<A>(std::abs(scale) * log2e);
    for (int64_t first = 0; first < tokens; first += plan.panel) {
        const int64_t count = std::min(plan.panel, tokens - first);
        const A *queries = qs + first * plan.width, *gradients = dos + first * plan.width;
        score<I, W>(queries, ks, kt, scores, count, plan);
        score<I, W>(gradients, vs, vt, dscores, count, plan);
        for (int64_t i = 0; i < count; ++i) {
            const S *o = out[first + i];
            typename W::Vector products{};
            A delta = 0;
            int64_t d = 0;
            for (; d + W::lanes <= head_dim; d += W::lanes) {
                products += W::load(o + d) * W::load(gradients + i * plan.width + d);
            }
            for (; d < head_dim; ++d) delta += load(o[d]) * gradients[i * plan.width + d];
            delta += W::sum(products);
            const A base = lse[first + i] * static_cast<A>(log2e);
            A *p = scores + i * plan.keys, *ds = dscores + i * plan.keys;
            for (int64_t t = 0; t < plan.keys; t += W::lanes) {
                const auto probability = W::exp2(W::load(p + t) * steep - base);
                W::store(p + t, probability);
                W::store(ds + t, probability * (W::load(ds + t) - delta));
            }
        }
        const int64_t vectors = plan.width / W::lanes;
        // Transposed on the left: row t of it is column t of the scores.
        I::multiply(Product<A>{scores, 1, plan.keys, gradients, plan.width, dvs, plan.width, tokens,
                               vectors, count, first > 0});
        I::multiply(Product<A>{dscores, 1, plan.keys, queries, plan.width, dks, plan.width, tokens,
                               vectors, count, first > 0});
        I::multiply(Product<A>{dscores, plan.keys, 1, ks, plan.width, dqs, plan.width, count,
                               vectors, tokens, false});
        for (int64_t i = 0; i < count; ++i) {
            scatter<W>(dqs + i * plan.width, dq[first + i], head_dim, static_cast<A>(scale));
        }
    }
    for (int64_t t = 0; t < tokens; ++t) {
        scatter<W>(dks + t * plan.width, dk[t], head_dim, static_cast<A>(std::abs(scale)));
        scatter<W>(dvs + t * plan.width, dv[t], head_dim, A(1));
    }
}

// One head of one image, found in the packed layout.
template <typename I, typename S, typename A = typename Accumulator<S>::type>
VITRESNAS_INLINE void forward_one(const VitresnasAttention &s, const void *qkv, void *out,
                                  void *lse, int64_t image, int64_t head, void *scratch) {
    const int64_t columns = s.most_heads * s.head_dim, at = head * s.head_dim;
    const S *q = static_cast<const S *>(qkv) + image * s.tokens * 3 * columns + at;
    S *o = static_cast<S *>(out) + image * s.tokens * columns + at;
    forward_head<I, S>({q, 3 * columns}, {q + columns, 3 * columns}, {q + 2 * columns, 3 * columns},
                       {o, columns}, static_cast<A *>(lse) + (image * s.most_heads + head) * s.tokens,
                       s.tokens, s.head_dim, s.scale, static_cast<A *>(scratch));
}

template <typename I, typename S, typename A = typename Accumulator<S>::type>
VITRESNAS_INLINE void backward_one(const VitresnasAttention &s, const void *dout, const void *qkv,
                                   const void *out, const void *lse, void *dqkv, int64_t image,
                                   int64_t head, void *scratch) {
    const int64_t columns = s.most_heads * s.head_dim, at = head * s.head_dim;
    const int64_t packed = image * s.tokens * 3 * columns + at, plain = image * s.tokens * columns + at;
    const S *q = static_cast<const S *>(qkv) + packed;
    S *dq = static_cast<S *>(dqkv) + packed;
    backward_head<I, S>(
        {static_cast<const S *>(dout) + plain, columns}, {q, 3 * columns}, {q + columns, 3 * columns},
        {q + 2 * columns, 3 * columns}, {static_cast<const S *>(out) + plain, columns},
        static_cast<const A *>(lse) + (image * s.most_heads + head) * s.tokens, {dq, 3 * columns},
        {dq + columns, 3 * columns}, {dq + 2 * columns, 3 * columns}, s.tokens, s.head_dim, s.scale,
        static_cast<A *>(scratch));
}

// The same for each instruction set: what is called from here on is compiled for TARGET. The product
// is a function, not inlined: it is large, and called from seven places.
#define VITRESNAS_HEAD(TARGET, NAME, TYPE)                                                         \
    TARGET static void forward_##NAME(const VitresnasAttention &s, const void *qkv, void *out,     \
                                      void *lse, int64_t image, int64_t head, void *scratch) {     \
        forward_one<Instructions, TYPE>(s, qkv, out, lse, image, head, scratch);                   \
    }                                                                                              \
    TARGET static void backward_##NAME(const VitresnasAttention &s, const void *dout,              \
                                       const void *qkv, const void *out, const void *lse,          \
                                       void *dqkv, int64_t image, int64_t head, void *scratch) {   \
        backward_one<Instructions, TYPE>(s, dout, qkv, out, lse, dqkv, image, head, scratch);      \
    }
#define VITRESNAS_INSTRUCTIONS(NAME, BYTES, TARGET)                                                \
    struct NAME {                                                                                  \
        using Instructions = NAME;                                                                 \
        static constexpr int bytes = BYTES;                                                        \
        TARGET static __attribute__((noinline)) void multiply(const Product<float> &p) {           \
            vitresnas::multiply<float, BYTES>(p);                                                  \
        }                                                                                          \
        TARGET static __attribute__((noinline)) void multiply(const Product<double> &p) {          \
            vitresnas::multiply<double, BYTES>(p);                                                 \
        }                                                                                          \
        VITRESNAS_HEAD(TARGET, float32, float)                                                     \
        VITRESNAS_HEAD(TARGET, float64, double)                                                    \
        VITRESNAS_HEAD(TARGET, bfloat16, bfloat16)                                                 \
    };

VITRESNAS_INSTRUCTIONS(Plain, 16, )
#if defined(__x86_64__) && defined(__GNUC__)
VITRESNAS_INSTRUCTIONS(Avx2, 32, __attribute__((target("arch=x86-64-v3"))))
VITRESNAS_INSTRUCTIONS(Avx512, 64, __attribute__((target("arch=x86-64-v4"))))
#endif

struct Functions {
    decltype(&Plain::forward_float32) forward;
    decltype(&Plain::backward_float32) backward;
};

template <typename I> Functions functions(int dtype) {
    if (dtype == VITRESNAS_FLOAT32) return {I::forward_float32, I::backward_float32};
    if (dtype == VITRESNAS_FLOAT64) return {I::forward_float64, I::backward_float64};
    return {I::forward_bfloat16, I::backward_bfloat16};
}

Functions best(int dtype) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512cd")) {
        return functions<Avx512>(dtype);
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return functions<Avx2>(dtype);
    }
#endif
    return functions<Plain>(dtype);
}

int check(const VitresnasAttention &s) {
    if (s.dtype < VITRESNAS_FLOAT32 || s.dtype > VITRESNAS_BFLOAT16) return VITRESNAS_BAD_DTYPE;
    if (s.images < 0 || s.tokens < 0 || s.most_heads < 1 || s.head_dim < 1 || s.groups < 1 ||
        s.images % s.groups || s.threads < 1) {
        return VITRESNAS_BAD_SHAPE;
    }
    for (int64_t g = 0; g < s.groups; ++g) {
        if (s.heads[g] < 0 || s.heads[g] > s.most_heads) return VITRESNAS_BAD_WIDTH;
    }
    return VITRESNAS_OK;
}

// Zeros behind the last active head up to the next 16 columns: heads of 32, 48 or 64 leave none.
void settle(const VitresnasAttention &s, void *rows, int64_t segments, int64_t image, int64_t active) {
    const int64_t columns = s.most_heads * s.head_dim, end = active * s.head_dim;
    const int64_t size = s.dtype == VITRESNAS_FLOAT64 ? 8 : s.dtype == VITRESNAS_FLOAT32 ? 4 : 2;
    const int64_t gap = std::min(whole(end, 16), columns) - end;
    char *at = static_cast<char *>(rows) + (image * s.tokens * segments * columns + end) * size;
    for (int64_t row = 0; gap && row < s.tokens * segments; ++row, at += columns * size) {
        std::memset(at, 0, gap * size);
    }
}

constexpr int64_t small = 1 << 15;  // numbers below which waking threads costs more than it saves

// run(image, head, scratch) for every active head; heads share nothing, so any order gives the same.
template <typename Run> void each_head(const VitresnasAttention &s, Run run) {
    const int64_t size = s.dtype == VITRESNAS_FLOAT64 ? 8 : 4;
    const int64_t bytes = size * vitresnas_variable_attention_scratch(s.tokens, s.head_dim);
    const int64_t per_group = s.images / s.groups;
    const int64_t work = s.images * s.most_heads * s.tokens * s.head_dim;
    const int team = work < small ? 1 : s.threads;
    char *next = static_cast<char *>(s.scratch);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        char *scratch;
#pragma omp critical
        {
            scratch = next;
            next += bytes;
        }
#pragma omp for collapse(2) schedule(dynamic, 4)
        for (int64_t image = 0; image < s.images; ++image) {
            for (int64_t head = 0; head < s.most_heads; ++head) {
                if (head < s.heads[image / per_group]) run(image, head, scratch);
            }
        }
    }
}

}  // namespace
}  // namespace vitresnas

int64_t vitresnas_variable_attention_scratch(int64_t tokens, int64_t head_dim) {
    using namespace vitresnas;
    const Plan plan(tokens, head_dim, most_lanes);
    return 9 * plan.rows() + 2 * plan.scores() + plan.panel;
}

int vitresnas_variable_attention_forward(const VitresnasAttention *shape, const void *qkv,
                                         void *out, void *lse) {
    using namespace vitresnas;
    const VitresnasAttention &s = *shape;
    if (const int status = check(s)) return status;
    const auto run = best(s.dtype).forward;
    each_head(s, [&](int64_t image, int64_t head, void *scratch) {
        run(s, qkv, out, lse, image, head, scratch);
        const int64_t active = s.heads[image / (s.images / s.groups)];
        if (head + 1 == active) settle(s, out, 1, image, active);
    });
    return VITRESNAS_OK;
}

int vitresnas_variable_attention_backward(const VitresnasAttention *shape, const void *dout,
                                          const void *qkv, const void *out, const void *lse,
                                          void *dqkv) {
    using namespace vitresnas;
    const VitresnasAttention &s = *shape;
    if (const int status = check(s)) return status;
    const auto run = best(s.dtype).backward;
    each_head(s, [&](int64_t image, int64_t head, void *scratch) {
        run(s, dout, qkv, out, lse, dqkv, image, head, scratch);
        const int64_t active = s.heads[image / (s.images / s.groups)];
        if (head + 1 == active) settle(s, dqkv, 3, image, active);
    });
    return VITRESNAS_OK;
}
