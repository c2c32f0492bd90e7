// Masked layer normalisation on the CPU; the mathematics is in vitresnas/ops/masked_layer_norm.py,
// the work on rows in masked_layer_norm_rows.h. Here: one copy of it per instruction set, and threads.

#include "cpu/masked_layer_norm.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cpu/vector.h"
#include "index/rows.h"
#include "status.h"

#pragma GCC diagnostic ignored "-Wpsabi"  // wide vectors never cross a call: all is inlined

namespace vitresnas {
namespace {

constexpr int TOGETHER = 2;  // rows at a time

struct ForwardRun {
    const void *x, *weight, *bias;
    void *y, *mean, *rstd;
    Span rows;
    int64_t active, end, channels;  // columns: that count, that are written, that there are
    double eps;
};

struct BackwardRun {
    const void *dy, *x, *mean, *rstd, *weight, *residual;
    void *dx, *partial;  // partial: dweight, then dbias, `channels` each
    Span rows;
    int64_t active, passed, end, channels;  // passed: columns that the residual gradient passes
};

struct Kernels {
    void (*forward)(int, const ForwardRun &);
    void (*backward)(int, const BackwardRun &);
    void (*add_float)(float *, const float *, int64_t);
    void (*add_double)(double *, const double *, int64_t);
};

namespace baseline {
#include "cpu/lanes.h"
#include "cpu/masked_layer_norm_rows.h"
constexpr Kernels kernels{forward, backward, add_float, add_double};
}  // namespace baseline

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
namespace v3 {
#include "cpu/lanes.h"
#include "cpu/masked_layer_norm_rows.h"
constexpr Kernels kernels{forward, backward, add_float, add_double};
}  // namespace v3
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
namespace v4 {
#include "cpu/lanes.h"
#include "cpu/masked_layer_norm_rows.h"
constexpr Kernels kernels{forward, backward, add_float, add_double};
}  // namespace v4
#pragma GCC pop_options

const Kernels &best() {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        return v4::kernels;
    }
    const bool third = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                       __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    return third ? v3::kernels : baseline::kernels;
}
#else
const Kernels &best() { return baseline::kernels; }
#endif

const Kernels &kernels() {
    static const Kernels &chosen = best();
    return chosen;
}

// Which instantiation works on these storage types, or -1.
int storage(int x, int y) {
    if (x == VITRESNAS_FLOAT64 && y == VITRESNAS_FLOAT64) return 4;
    const auto single = [](int dtype) {
        return dtype == VITRESNAS_FLOAT32 || dtype == VITRESNAS_BFLOAT16;
    };
    if (!single(x) || !single(y)) return -1;
    return 2 * (x == VITRESNAS_BFLOAT16) + (y == VITRESNAS_BFLOAT16);
}

int check(int which, const int32_t *widths, int64_t rows, int64_t channels, int64_t groups) {
    if (which < 0) return VITRESNAS_BAD_DTYPE;
    if (rows < 0 || channels < 0 || groups < 1 || rows % groups) return VITRESNAS_BAD_SHAPE;
    for (int64_t g = 0; g < groups; ++g) {
        if (widths[g] < 0 || widths[g] > channels) return VITRESNAS_BAD_WIDTH;
    }
    return VITRESNAS_OK;
}

constexpr int64_t small = 1 << 15;  // elements below which waking threads costs more than it saves

// Sums the chunks' partials in their order; of each, only the columns that its group reaches.
template <typename A, typename Add>
void add_in_order(Add add, const void *partials, const int32_t *widths, void *dweight, void *dbias,
                  int64_t groups, int64_t chunks, int64_t channels) {
    A *targets[2] = {static_cast<A *>(dweight), static_cast<A *>(dbias)};
    for (int which = 0; which < 2; ++which) {
        std::fill(targets[which], targets[which] + channels, A(0));
        const A *source = static_cast<const A *>(partials) + which * channels;
        for (int64_t part = 0; part < groups * chunks; ++part, source += 2 * channels) {
            add(targets[which], source, widths[part / chunks]);
        }
    }
}

}  // namespace
}  // namespace vitresnas

int vitresnas_masked_layer_norm_forward(int x_dtype, int y_dtype, const void *x,
                                        const void *weight, const void *bias,
                                        const int32_t *widths, void *y, void *mean, void *rstd,
                                        int64_t rows, int64_t channels, int64_t groups, double eps,
                                        bool padded, int threads) {
    using namespace vitresnas;
    const int which = storage(x_dtype, y_dtype);
    if (const int status = check(which, widths, rows, channels, groups)) return status;
    const int64_t per_group = rows / groups;
    constexpr int64_t step = 16;  // rows per task: enough to pay for handing it out, and groups even out
    const int64_t tasks = (per_group + step - 1) / step;
    const int team = rows * channels < small ? 1 : threads;
    const auto run = kernels().forward;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(team) if (team > 1)
    for (int64_t g = 0; g < groups; ++g) {
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t first = g * per_group + task * step;
            const Span span{first, std::min(first + step, (g + 1) * per_group)};
            run(which, {x, weight, bias, y, mean, rstd, span, widths[g],
                        written_width(widths[g], channels, padded), channels, eps});
        }
    }
    return VITRESNAS_OK;
}

int vitresnas_masked_layer_norm_backward(int x_dtype, int y_dtype, const void *dy, const void *x,
                                         const void *mean, const void *rstd, const void *weight,
                                         const int32_t *widths, const void *residual,
                                         const int32_t *skip_widths, void *dx, void *partials,
                                         void *dweight, void *dbias, int64_t rows,
                                         int64_t channels, int64_t groups, int64_t chunks,
                                         bool padded, int threads) {
    using namespace vitresnas;
    const int which = storage(x_dtype, y_dtype);
    if (const int status = check(which, widths, rows, channels, groups)) return status;
    if (residual) {
        if (const int status = check(which, skip_widths, rows, channels, groups)) return status;
    }
    if (chunks < 1) return VITRESNAS_BAD_SHAPE;
    const int64_t per_group = rows / groups;
    const int64_t bytes = 2 * channels * (x_dtype == VITRESNAS_FLOAT64 ? 8 : 4);
    const int team = rows * channels < small ? 1 : threads;
    const auto run = kernels().backward;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(team) if (team > 1)
    for (int64_t g = 0; g < groups; ++g) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const int64_t active = widths[g];
            const int64_t passed = residual ? std::max<int64_t>(skip_widths[g], active) : active;
            char *partial = static_cast<char *>(partials) + (g * chunks + chunk) * bytes;
            run(which, {dy, x, mean, rstd, weight, residual, dx, partial,
                        chunk_of_rows(g, chunk, per_group, chunks), active, passed,
                        written_width(passed, channels, padded), channels});
        }
    }
    if (x_dtype == VITRESNAS_FLOAT64) {
        add_in_order<double>(kernels().add_double, partials, widths, dweight, dbias, groups,
                             chunks, channels);
    } else {
        add_in_order<float>(kernels().add_float, partials, widths, dweight, dbias, groups, chunks,
                            channels);
    }
    return VITRESNAS_OK;
}
