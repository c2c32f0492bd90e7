// Patch embedding on the CPU; the mathematics is in vitresnas/ops/variable_patch_embedding.py.
//
// The products are torch's; here is what moves pixels into rows and back, and the sum that makes tokens.

#include "cpu/variable_patch_embedding.h"

#include "cpu/rows.h"

namespace vitresnas {
namespace {

// One row of patches: for each channel and each of `patch` pixel rows a run of side * patch pixels, of
// which each `patch` go to another row of columns. forth: trunk to columns, else columns to trunk.
template <typename T, typename A, bool forth>
VITRESNAS_INLINE void move_row(const VitresnasPatches &s, T *trunk, A *columns) {
    const int64_t size = s.channels * s.patch * s.patch;
    for (int64_t c = 0; c < s.channels; ++c) {
        for (int64_t u = 0; u < s.patch; ++u) {
            T *run = trunk + c * s.channel_stride + u * s.row_stride;
            A *at = columns + (c * s.patch + u) * s.patch;
            for (int64_t j = 0; j < s.side; ++j) {
                for (int64_t v = 0; v < s.patch; ++v) {
                    T &pixel = run[(j * s.patch + v) * s.column_stride];
                    if (forth) {
                        at[j * size + v] = load(pixel);
                    } else {
                        store(pixel, at[j * size + v]);
                    }
                }
            }
        }
    }
}

template <typename T, bool forth, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void move(const VitresnasPatches &s, void *trunk, void *columns, int64_t image,
                           int64_t i) {
    move_row<T, A, forth>(
        s, static_cast<T *>(trunk) + image * s.image_stride + i * s.patch * s.row_stride,
        static_cast<A *>(columns) +
            (image * s.side + i) * s.side * s.channels * s.patch * s.patch);
}

// One token: product (null for a prefix token) + addend + position.
template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void token(const void *products, int64_t product, const void *addends,
                            int64_t addend, const void *positions, int64_t position, void *out,
                            int64_t row, int64_t channels, int64_t width) {
    const A *b = static_cast<const A *>(addends) + addend * channels;
    const A *p = static_cast<const A *>(positions) + position * channels;
    T *to = static_cast<T *>(out) + row * channels;
    if (product < 0) {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) store(to[c], b[c] + p[c]);
    } else {
        const A *a = static_cast<const A *>(products) + product * width;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) store(to[c], a[c] + b[c] + p[c]);
    }
    settle(to, width, channels);
}

#define VITRESNAS_PATCHES(NAME, TYPE)                                                              \
    VITRESNAS_CLONES void gather_##NAME(const VitresnasPatches &s, void *trunk, void *columns,     \
                                        int64_t image, int64_t i) {                                \
        move<TYPE, true>(s, trunk, columns, image, i);                                             \
    }                                                                                              \
    VITRESNAS_CLONES void scatter_##NAME(const VitresnasPatches &s, void *trunk, void *columns,    \
                                         int64_t image, int64_t i) {                               \
        move<TYPE, false>(s, trunk, columns, image, i);                                            \
    }                                                                                              \
    VITRESNAS_CLONES void token_##NAME(const void *products, int64_t product, const void *addends, \
                                       int64_t addend, const void *positions, int64_t position,    \
                                       void *out, int64_t row, int64_t channels, int64_t width) {  \
        token<TYPE>(products, product, addends, addend, positions, position, out, row, channels,   \
                    width);                                                                        \
    }

VITRESNAS_PATCHES(float32, float)
VITRESNAS_PATCHES(float64, double)
VITRESNAS_PATCHES(bfloat16, bfloat16)

int move_all(const VitresnasPatches &s, void *trunk, void *columns, bool forth) {
    if (!known(s.dtype)) return VITRESNAS_BAD_DTYPE;
    if (s.images < 0 || s.channels < 0 || s.side < 0 || s.patch < 1) return VITRESNAS_BAD_SHAPE;
    const auto run = forth ? VITRESNAS_BY_DTYPE(gather, s.dtype)
                           : VITRESNAS_BY_DTYPE(scatter, s.dtype);
    const int workers =
        team(s.threads, s.images * s.channels * s.side * s.side * s.patch * s.patch);
#pragma omp parallel for collapse(2) num_threads(workers) if (workers > 1)
    for (int64_t image = 0; image < s.images; ++image) {
        for (int64_t i = 0; i < s.side; ++i) run(s, trunk, columns, image, i);
    }
    return VITRESNAS_OK;
}

}  // namespace
}  // namespace vitresnas

int vitresnas_patches_gather(const VitresnasPatches *shape, const void *trunk, void *columns) {
    return vitresnas::move_all(*shape, const_cast<void *>(trunk), columns, true);
}

int vitresnas_patches_scatter(const VitresnasPatches *shape, const void *columns, void *trunk) {
    return vitresnas::move_all(*shape, trunk, const_cast<void *>(columns), false);
}

int vitresnas_patches_forward(int dtype, const void *products, const void *bias,
                              const void *prefix_tokens, const void *position, void *out,
                              int64_t images, int64_t prefix, int64_t patches, int64_t channels,
                              int64_t width, int threads) {
    using namespace vitresnas;
    if (!known(dtype)) return VITRESNAS_BAD_DTYPE;
    if (images < 0 || prefix < 0 || patches < 0) return VITRESNAS_BAD_SHAPE;
    if (width < 0 || width > channels) return VITRESNAS_BAD_WIDTH;
    const auto run = VITRESNAS_BY_DTYPE(token, dtype);
    const int64_t tokens = prefix + patches;
    const int workers = team(threads, images * tokens * width);
#pragma omp parallel for collapse(2) num_threads(workers) if (workers > 1)
    for (int64_t image = 0; image < images; ++image) {
        for (int64_t t = 0; t < tokens; ++t) {
            const bool is_patch = t >= prefix;
            run(products, is_patch ? image * patches + t - prefix : -1,
                is_patch ? bias : prefix_tokens, is_patch ? 0 : t, position, t, out,
                image * tokens + t, channels, width);
        }
    }
    return VITRESNAS_OK;
}
