// Residual spatial reduction on the CPU; the mathematics is in vitresnas/ops/variable_reduction.py.
//
// The products are torch's. Here: gathering the tokens that a tap of the filter meets into a dense matrix
// (a contiguous copy per token, in the type that products run in), and everything elementwise around them.

#include "cpu/variable_reduction.h"

#include "cpu/rows.h"
#include "index/reduction.h"
#include "status.h"

namespace vitresnas {
namespace {

template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void gather_row(const void *x, void *columns, int64_t from, int64_t to,
                                 int64_t channels, int64_t width) {
    const T *source = from < 0 ? nullptr : static_cast<const T *>(x) + from * channels;
    copy_row(source, static_cast<A *>(columns) + to * width, width);
}

// Token `token` of one image of the output.
template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void forward_token(const VitresnasReduction &s, const void *patches,
                                    const void *prefixes, const void *x, const void *bias,
                                    const void *position, const void *prefix_bias, void *out,
                                    int64_t image, int64_t token) {
    const int64_t half = s.side / 2, tokens = s.prefix + half * half, patch = token - s.prefix;
    const T *from =
        static_cast<const T *>(x) + image * (s.prefix + s.side * s.side) * s.channels_in;
    T *to = static_cast<T *>(out) + (image * tokens + token) * s.channels_out;
    if (!s.width_in) {
        std::memset(static_cast<void *>(to), 0, s.width_out * sizeof(T));
    } else if (patch < 0) {
        const A *product =
            static_cast<const A *>(prefixes) + (image * s.prefix + token) * s.width_out;
        const A *added = static_cast<const A *>(prefix_bias);
        const T *skip = from + token * s.channels_in;
#pragma omp simd
        for (int64_t c = 0; c < s.width_in; ++c) {
            store(to[c], product[c] + added[c] + load(skip[c]));
        }
#pragma omp simd
        for (int64_t c = s.width_in; c < s.width_out; ++c) store(to[c], product[c] + added[c]);
    } else {
        const A *product =
            static_cast<const A *>(patches) + (image * half * half + patch) * s.width_out;
        const A *added = static_cast<const A *>(bias);
        const A *place = static_cast<const A *>(position) + patch * s.channels_out;
        const T *left =
            from + (s.prefix + 2 * (patch / half) * s.side + 2 * (patch % half)) * s.channels_in;
        const T *right = left + s.channels_in;
        const int64_t below = s.side * s.channels_in;
#pragma omp simd
        for (int64_t c = 0; c < s.width_in; ++c) {
            const A sum = (load(left[c]) + load(right[c])) +
                          (load(left[below + c]) + load(right[below + c]));
            store(to[c], product[c] + added[c] + place[c] + A(0.25) * sum);
        }
#pragma omp simd
        for (int64_t c = s.width_in; c < s.width_out; ++c) {
            store(to[c], product[c] + added[c] + place[c]);
        }
    }
    settle(to, s.width_out, s.channels_out);
}

template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void scatter_row(const void *gradients, void *dy, int64_t from, int64_t to,
                                  int64_t channels, int64_t width) {
    const A *source = static_cast<const A *>(gradients) + from * width;
    T *target = static_cast<T *>(dy) + to * channels;
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) store(target[c], source[c]);
    settle(target, width, channels);
}

// dx of token `token` of one image of the input.
template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void skip_token(const VitresnasReduction &s, const void *dout, void *dx,
                                 int64_t image, int64_t token) {
    const int64_t half = s.side / 2, patch = token - s.prefix;
    const bool is_patch = patch >= 0;
    const int64_t from =
        is_patch ? s.prefix + patch / s.side / 2 * half + patch % s.side / 2 : token;
    const T *source = static_cast<const T *>(dout) +
                      (image * (s.prefix + half * half) + from) * s.channels_out;
    T *target = static_cast<T *>(dx) +
                (image * (s.prefix + s.side * s.side) + token) * s.channels_in;
    const A share = is_patch ? A(0.25) : A(1);
#pragma omp simd
    for (int64_t c = 0; c < s.width_in; ++c) store(target[c], share * load(source[c]));
    settle(target, s.width_in, s.channels_in);
}

#define VITRESNAS_ROWS(NAME, TYPE)                                                                 \
    VITRESNAS_CLONES void gather_##NAME(const void *x, void *columns, int64_t from, int64_t to,    \
                                        int64_t channels, int64_t width) {                         \
        gather_row<TYPE>(x, columns, from, to, channels, width);                                   \
    }                                                                                              \
    VITRESNAS_CLONES void scatter_##NAME(const void *gradients, void *dy, int64_t from,            \
                                         int64_t to, int64_t channels, int64_t width) {            \
        scatter_row<TYPE>(gradients, dy, from, to, channels, width);                               \
    }                                                                                              \
    VITRESNAS_CLONES void forward_##NAME(                                                          \
        const VitresnasReduction &s, const void *patches, const void *prefixes, const void *x,     \
        const void *bias, const void *position, const void *prefix_bias, void *out, int64_t image, \
        int64_t token) {                                                                           \
        forward_token<TYPE>(s, patches, prefixes, x, bias, position, prefix_bias, out, image,      \
                            token);                                                                \
    }                                                                                              \
    VITRESNAS_CLONES void skip_##NAME(const VitresnasReduction &s, const void *dout, void *dx,     \
                                      int64_t image, int64_t token) {                              \
        skip_token<TYPE>(s, dout, dx, image, token);                                               \
    }

VITRESNAS_ROWS(float32, float)
VITRESNAS_ROWS(float64, double)
VITRESNAS_ROWS(bfloat16, bfloat16)

int check(const VitresnasReduction &s) {
    if (!known(s.dtype)) return VITRESNAS_BAD_DTYPE;
    if (s.images < 0 || s.prefix < 0 || s.side < 2 || s.side % 2) return VITRESNAS_BAD_SHAPE;
    if (s.width_in < 0 || s.width_in > s.channels_in || s.width_out < s.width_in ||
        s.width_out > s.channels_out) {
        return VITRESNAS_BAD_WIDTH;
    }
    return VITRESNAS_OK;
}

}  // namespace
}  // namespace vitresnas

int vitresnas_gather_tokens(int dtype, const void *x, void *columns, int64_t images, int64_t prefix,
                            int64_t side, int64_t half, int64_t channels, int64_t width,
                            int64_t stride, int64_t down, int64_t right, int threads) {
    using namespace vitresnas;
    if (!known(dtype)) return VITRESNAS_BAD_DTYPE;
    if (images < 0 || prefix < 0 || side < 1 || half < 1) return VITRESNAS_BAD_SHAPE;
    if (width < 0 || width > channels) return VITRESNAS_BAD_WIDTH;
    const auto gather = VITRESNAS_BY_DTYPE(gather, dtype);
    const int64_t tokens = prefix + side * side;
    const int workers = team(threads, images * half * half * width);
#pragma omp parallel for collapse(2) num_threads(workers) if (workers > 1)
    for (int64_t image = 0; image < images; ++image) {
        for (int64_t i = 0; i < half; ++i) {
            for (int64_t j = 0; j < half; ++j) {
                const int64_t token = token_at(i, j, stride, down, right, side);
                gather(x, columns, token < 0 ? -1 : image * tokens + prefix + token,
                       (image * half + i) * half + j, channels, width);
            }
        }
    }
    return VITRESNAS_OK;
}

int vitresnas_reduction_forward(const VitresnasReduction *shape, const void *patches,
                                const void *prefixes, const void *x, const void *bias,
                                const void *position, const void *prefix_bias, void *out) {
    using namespace vitresnas;
    const VitresnasReduction &s = *shape;
    if (const int status = check(s)) return status;
    const auto forward = VITRESNAS_BY_DTYPE(forward, s.dtype);
    const int64_t tokens = s.prefix + s.side * s.side / 4;
    const int workers = team(s.threads, s.images * tokens * s.width_out);
#pragma omp parallel for collapse(2) num_threads(workers) if (workers > 1)
    for (int64_t image = 0; image < s.images; ++image) {
        for (int64_t token = 0; token < tokens; ++token) {
            forward(s, patches, prefixes, x, bias, position, prefix_bias, out, image, token);
        }
    }
    return VITRESNAS_OK;
}

int vitresnas_reduction_scatter(const VitresnasReduction *shape, const void *gradients, void *dy,
                                int64_t row, int64_t column) {
    using namespace vitresnas;
    const VitresnasReduction &s = *shape;
    if (const int status = check(s)) return status;
    const auto scatter = VITRESNAS_BY_DTYPE(scatter, s.dtype);
    const int64_t half = s.side / 2, tokens = s.prefix + s.side * s.side;
    const int workers = team(s.threads, s.images * half * half * s.width_in);
#pragma omp parallel for collapse(2) num_threads(workers) if (workers > 1)
    for (int64_t image = 0; image < s.images; ++image) {
        for (int64_t i = 0; i < half; ++i) {
            for (int64_t j = 0; j < half; ++j) {
                const int64_t token = token_at(i, j, 2, row, column, s.side);
                scatter(gradients, dy, (image * half + i) * half + j,
                        image * tokens + s.prefix + token, s.channels_in, s.width_in);
            }
        }
    }
    return VITRESNAS_OK;
}

int vitresnas_reduction_skip(const VitresnasReduction *shape, const void *dout, void *dx) {
    using namespace vitresnas;
    const VitresnasReduction &s = *shape;
    if (const int status = check(s)) return status;
    const auto skip = VITRESNAS_BY_DTYPE(skip, s.dtype);
    const int64_t tokens = s.prefix + s.side * s.side;
    const int workers = team(s.threads, s.images * tokens * s.width_in);
#pragma omp parallel for collapse(2) num_threads(workers) if (workers > 1)
    for (int64_t image = 0; image < s.images; ++image) {
        for (int64_t token = 0; token < tokens; ++token) skip(s, dout, dx, image, token);
    }
    return VITRESNAS_OK;
}
