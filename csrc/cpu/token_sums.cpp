#include "cpu/token_sums.h"

#include "cpu/rows.h"

namespace vitresnas {
namespace {

// Row `token` of the sums.
template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void sum_token(const void *x, const int32_t *widths, void *sums, int64_t token,
                                int64_t images, int64_t tokens, int64_t channels, int64_t groups) {
    const int64_t per_group = images / groups;
    A *target = static_cast<A *>(sums) + token * channels;
    std::memset(static_cast<void *>(target), 0, channels * sizeof(A));
    for (int64_t image = 0; image < images; ++image) {
        const T *source = static_cast<const T *>(x) + (image * tokens + token) * channels;
        const int64_t width = widths[image / per_group];
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) target[c] += load(source[c]);
    }
}

#define VITRESNAS_SUMS(NAME, TYPE)                                                                 \
    VITRESNAS_CLONES void sum_##NAME(const void *x, const int32_t *widths, void *sums,             \
                                     int64_t token, int64_t images, int64_t tokens,                \
                                     int64_t channels, int64_t groups) {                           \
        sum_token<TYPE>(x, widths, sums, token, images, tokens, channels, groups);                 \
    }

VITRESNAS_SUMS(float32, float)
VITRESNAS_SUMS(float64, double)
VITRESNAS_SUMS(bfloat16, bfloat16)

template <typename A>
void add_rows(const void *sums, void *total, int64_t first, int64_t last, int64_t channels) {
    A *target = static_cast<A *>(total);
    std::fill(target, target + channels, A(0));
    for (int64_t row = first; row < last; ++row) {
        const A *source = static_cast<const A *>(sums) + row * channels;
        for (int64_t c = 0; c < channels; ++c) target[c] += source[c];
    }
}

}  // namespace
}  // namespace vitresnas

int vitresnas_token_sums(int dtype, const void *x, const int32_t *widths, void *sums,
                         void *prefix_total, void *patch_total, int64_t images, int64_t tokens,
                         int64_t prefix, int64_t channels, int64_t groups, int threads) {
    using namespace vitresnas;
    if (!known(dtype)) return VITRESNAS_BAD_DTYPE;
    if (images < 0 || prefix < 0 || tokens < prefix || groups < 1 || images % groups) {
        return VITRESNAS_BAD_SHAPE;
    }
    for (int64_t g = 0; g < groups; ++g) {
        if (widths[g] < 0 || widths[g] > channels) return VITRESNAS_BAD_WIDTH;
    }
    const auto sum = VITRESNAS_BY_DTYPE(sum, dtype);
    const int workers = team(threads, images * tokens * channels);
#pragma omp parallel for num_threads(workers) if (workers > 1)
    for (int64_t token = 0; token < tokens; ++token) {
        sum(x, widths, sums, token, images, tokens, channels, groups);
    }
    const auto add = dtype == VITRESNAS_FLOAT64 ? add_rows<double> : add_rows<float>;
    add(sums, prefix_total, 0, prefix, channels);
    add(sums, patch_total, prefix, tokens, channels);
    return VITRESNAS_OK;
}
