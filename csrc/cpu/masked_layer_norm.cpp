// Masked layer normalisation on the CPU; the mathematics is in vitresnas/ops/masked_layer_norm.py.
//
// Two passes over a row for the statistics (the row stays in the first-level cache), because
// E[x^2] - E[x]^2 loses all digits once the mean is large. Inactive columns are never read.

#include "cpu/masked_layer_norm.h"

#include <algorithm>
#include <cmath>

#include "cpu/vector.h"
#include "status.h"

namespace vitresnas {
namespace {

// One row forward; active in [0, channels].
template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void forward_row(const T *x, const A *weight, const A *bias, T *y, A *mean_out,
                                  A *rstd_out, int64_t active, int64_t channels, A eps) {
    const A scale = A(1) / static_cast<A>(std::max<int64_t>(active, 1));
    const A mean = scale * total<A>(active, [=](int64_t c) VITRESNAS_BODY { return load(x[c]); });
    const A variance = scale * total<A>(active, [=](int64_t c) VITRESNAS_BODY {
        const A centred = load(x[c]) - mean;
        return centred * centred;
    });
    const A rstd = A(1) / std::sqrt(variance + eps);
#pragma omp simd
    for (int64_t c = 0; c < active; ++c) {
        store(y[c], (load(x[c]) - mean) * rstd * weight[c] + bias[c]);
    }
    std::memset(static_cast<void *>(y + active), 0, (channels - active) * sizeof(T));
    *mean_out = mean;
    *rstd_out = rstd;
}

// One row backward: dx, and this row's share added to the two partial sums.
template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void backward_row(const T *dy, const T *x, A mean, A rstd, const A *weight, T *dx,
                                   A *dweight, A *dbias, int64_t active, int64_t channels) {
    const A scale = A(1) / static_cast<A>(std::max<int64_t>(active, 1));
    const A m1 = scale * total<A>(active, [=](int64_t c) VITRESNAS_BODY {
        return load(dy[c]) * weight[c];
    });
    const A m2 = scale * total<A>(active, [=](int64_t c) VITRESNAS_BODY {
        return load(dy[c]) * weight[c] * ((load(x[c]) - mean) * rstd);
    });
#pragma omp simd
    for (int64_t c = 0; c < active; ++c) {
        const A xhat = (load(x[c]) - mean) * rstd;
        const A gradient = load(dy[c]);
        store(dx[c], rstd * (gradient * weight[c] - m1 - xhat * m2));
        dweight[c] += gradient * xhat;
        dbias[c] += gradient;
    }
    std::memset(static_cast<void *>(dx + active), 0, (channels - active) * sizeof(T));
}

// A run of rows of one group. These are the functions that are cloned per instruction set.
template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void forward_run(const void *x, const void *weight, const void *bias, void *y,
                                  void *mean, void *rstd, int64_t first, int64_t last,
                                  int64_t active, int64_t channels, double eps) {
    for (int64_t row = first; row < last; ++row) {
        forward_row<T>(static_cast<const T *>(x) + row * channels, static_cast<const A *>(weight),
                       static_cast<const A *>(bias), static_cast<T *>(y) + row * channels,
                       static_cast<A *>(mean) + row, static_cast<A *>(rstd) + row, active, channels,
                       static_cast<A>(eps));
    }
}

template <typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void backward_run(const void *dy, const void *x, const void *mean,
                                   const void *rstd, const void *weight, void *dx, void *partial,
                                   int64_t first, int64_t last, int64_t active, int64_t channels) {
    A *dweight = static_cast<A *>(partial), *dbias = dweight + channels;
    std::memset(partial, 0, 2 * channels * sizeof(A));
    for (int64_t row = first; row < last; ++row) {
        backward_row<T>(static_cast<const T *>(dy) + row * channels,
                        static_cast<const T *>(x) + row * channels,
                        static_cast<const A *>(mean)[row], static_cast<const A *>(rstd)[row],
                        static_cast<const A *>(weight), static_cast<T *>(dx) + row * channels,
                        dweight, dbias, active, channels);
    }
}

#define VITRESNAS_RUNS(NAME, TYPE)                                                                 \
    VITRESNAS_CLONES void forward_##NAME(const void *x, const void *weight, const void *bias,      \
                                         void *y, void *mean, void *rstd, int64_t first,           \
                                         int64_t last, int64_t active, int64_t channels,           \
                                         double eps) {                                             \
        forward_run<TYPE>(x, weight, bias, y, mean, rstd, first, last, active, channels, eps);     \
    }                                                                                              \
    VITRESNAS_CLONES void backward_##NAME(const void *dy, const void *x, const void *mean,         \
                                          const void *rstd, const void *weight, void *dx,          \
                                          void *partial, int64_t first, int64_t last,              \
                                          int64_t active, int64_t channels) {                      \
        backward_run<TYPE>(dy, x, mean, rstd, weight, dx, partial, first, last, active, channels); \
    }

VITRESNAS_RUNS(float32, float)
VITRESNAS_RUNS(float64, double)
VITRESNAS_RUNS(bfloat16, bfloat16)

constexpr int64_t small = 1 << 15;  // elements below which waking threads costs more than it saves

int check(int dtype, const int32_t *widths, int64_t rows, int64_t channels, int64_t groups) {
    if (dtype < VITRESNAS_FLOAT32 || dtype > VITRESNAS_BFLOAT16) return VITRESNAS_BAD_DTYPE;
    if (rows < 0 || channels < 0 || groups < 1 || rows % groups) return VITRESNAS_BAD_SHAPE;
    for (int64_t g = 0; g < groups; ++g) {
        if (widths[g] < 0 || widths[g] > channels) return VITRESNAS_BAD_WIDTH;
    }
    return VITRESNAS_OK;
}

template <typename A>
void add_in_order(const void *partials, void *dweight, void *dbias, int64_t parts,
                  int64_t channels) {
    A *targets[2] = {static_cast<A *>(dweight), static_cast<A *>(dbias)};
    for (int which = 0; which < 2; ++which) {
        A *target = targets[which];
        std::fill(target, target + channels, A(0));
        for (int64_t part = 0; part < parts; ++part) {
            const A *source = static_cast<const A *>(partials) + (2 * part + which) * channels;
            for (int64_t c = 0; c < channels; ++c) target[c] += source[c];
        }
    }
}

}  // namespace
}  // namespace vitresnas

int vitresnas_masked_layer_norm_forward(int dtype, const void *x, const void *weight,
                                        const void *bias, const int32_t *widths, void *y,
                                        void *mean, void *rstd, int64_t rows, int64_t channels,
                                        int64_t groups, double eps, int threads) {
    using namespace vitresnas;
    if (const int status = check(dtype, widths, rows, channels, groups)) return status;
    const auto run = dtype == VITRESNAS_FLOAT32   ? forward_float32
                     : dtype == VITRESNAS_FLOAT64 ? forward_float64
                                                  : forward_bfloat16;
    const int64_t per_group = rows / groups;
    constexpr int64_t step = 16;  // rows per task: enough to pay for handing it out, and groups even out
    const int64_t tasks = (per_group + step - 1) / step;
    const int team = rows * channels < small ? 1 : threads;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(team) if (team > 1)
    for (int64_t g = 0; g < groups; ++g) {
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t first = g * per_group + task * step;
            const int64_t last = std::min(first + step, (g + 1) * per_group);
            run(x, weight, bias, y, mean, rstd, first, last, widths[g], channels, eps);
        }
    }
    return VITRESNAS_OK;
}

int vitresnas_masked_layer_norm_backward(int dtype, const void *dy, const void *x,
                                         const void *mean, const void *rstd, const void *weight,
                                         const int32_t *widths, void *dx, void *partials,
                                         void *dweight, void *dbias, int64_t rows,
                                         int64_t channels, int64_t groups, int64_t chunks,
                                         int threads) {
    using namespace vitresnas;
    if (const int status = check(dtype, widths, rows, channels, groups)) return status;
    if (chunks < 1) return VITRESNAS_BAD_SHAPE;
    const auto run = dtype == VITRESNAS_FLOAT32   ? backward_float32
                     : dtype == VITRESNAS_FLOAT64 ? backward_float64
                                                  : backward_bfloat16;
    const int64_t per_group = rows / groups;
    const int64_t step = (per_group + chunks - 1) / chunks;
    const int64_t bytes = 2 * channels * (dtype == VITRESNAS_FLOAT64 ? 8 : 4);
    const int team = rows * channels < small ? 1 : threads;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(team) if (team > 1)
    for (int64_t g = 0; g < groups; ++g) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const int64_t end = (g + 1) * per_group;
            const int64_t first = std::min(g * per_group + chunk * step, end);
            const int64_t last = std::min(first + step, end);
            char *partial = static_cast<char *>(partials) + (g * chunks + chunk) * bytes;
            run(dy, x, mean, rstd, weight, dx, partial, first, last, widths[g], channels);
        }
    }
    if (dtype == VITRESNAS_FLOAT64) {
        add_in_order<double>(partials, dweight, dbias, groups * chunks, channels);
    } else {
        add_in_order<float>(partials, dweight, dbias, groups * chunks, channels);
    }
    return VITRESNAS_OK;
}
