// Epilogues and prologues of the variable-width linear on the CPU, each one pass over memory that
// the matrix product beside it has just left in the cache. The products themselves are torch's.

#include "cpu/variable_linear.h"

#include <algorithm>
#include <cmath>

#include "cpu/vector.h"
#include "status.h"

namespace vitresnas {
namespace {

// exp(x) for x <= 0, to 2 units in the last place; below -87 it stays at exp(-87), about 1e-38.
VITRESNAS_INLINE float exp_of_negative(float x) {
    x = std::max(x, -87.0f);
    const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum is rounded to integers
    const float whole = shifted - 12582912.0f;
    const float part = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two pieces
    float sum = 1.0f / 720;  // Taylor; |part| <= ln(2) / 2
    sum = sum * part + 1.0f / 120;
    sum = sum * part + 1.0f / 24;
    sum = sum * part + 1.0f / 6;
    sum = sum * part + 0.5f;
    sum = sum * part + 1.0f;
    sum = sum * part + 1.0f;
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return sum * power;
}

// The normal distribution: share = P(Z < x), density = its derivative. erfc after Abramowitz and
// Stegun, Handbook of Mathematical Functions, 7.1.26: absolute error below 1.5e-7.
VITRESNAS_INLINE void normal(float x, float &share, float &density) {
    const float size = std::abs(x);
    const float e = exp_of_negative(-0.5f * x * x);
    const float t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * size);
    float sum = 1.061405429f;
    sum = sum * t - 1.453152027f;
    sum = sum * t + 1.421413741f;
    sum = sum * t - 0.284496736f;
    sum = sum * t + 0.254829592f;
    const float tail = 0.5f * sum * t * e;
    share = x < 0 ? tail : 1.0f - tail;
    density = 0.39894228f * e;
}
VITRESNAS_INLINE void normal(double x, double &share, double &density) {
    share = 0.5 * std::erfc(-x * 0.70710678118654752440);
    density = 0.39894228040143267794 * std::exp(-0.5 * x * x);
}

template <typename T> VITRESNAS_INLINE void pad(T *row, int64_t columns, int64_t padded) {
    std::memset(static_cast<void *>(row + columns), 0, (padded - columns) * sizeof(T));
}

// T the type of products, D that of y, residual and dy. These are cloned per instruction set.
template <typename T, typename D, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void bias_row(const void *product_, const void *bias_, void *y_, int64_t columns,
                               int64_t padded) {
    const T *product = static_cast<const T *>(product_);
    const A *bias = static_cast<const A *>(bias_);
    D *y = static_cast<D *>(y_);
#pragma omp simd
    for (int64_t c = 0; c < columns; ++c) store(y[c], load(product[c]) + bias[c]);
    pad(y, columns, padded);
}

template <typename P, typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void gelu_row(const void *product_, const void *bias_, void *pre_, void *y_,
                               int64_t columns, int64_t padded) {
    const P *product = static_cast<const P *>(product_);
    const A *bias = static_cast<const A *>(bias_);
    T *pre = static_cast<T *>(pre_), *y = static_cast<T *>(y_);
    if (pre) {
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) {
            const A x = load(product[c]) + bias[c];
            A share, density;
            normal(x, share, density);
            store(pre[c], x);
            store(y[c], x * share);
        }
        pad(pre, columns, padded);
    } else {
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) {
            const A x = load(product[c]) + bias[c];
            A share, density;
            normal(x, share, density);
            store(y[c], x * share);
        }
    }
    pad(y, columns, padded);
}

template <typename T, typename D, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void residual_row(const void *product_, const void *bias_, const void *residual_,
                                   const void *scale_, void *y_, int64_t columns, int64_t padded) {
    const T *product = static_cast<const T *>(product_);
    const A *bias = static_cast<const A *>(bias_);
    const D *residual = static_cast<const D *>(residual_);
    D *y = static_cast<D *>(y_);
    const A scale = scale_ ? *static_cast<const A *>(scale_) : A(1);
    if (product) {
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) {
            store(y[c], load(residual[c]) + scale * (load(product[c]) + bias[c]));
        }
    } else {
        std::memcpy(static_cast<void *>(y), residual, columns * sizeof(D));
    }
    pad(y, columns, padded);
}

template <typename P, typename T, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void gelu_backward_row(const void *product_, const void *pre_, void *dx_,
                                        int64_t columns, int64_t padded) {
    const P *product = static_cast<const P *>(product_);
    const T *pre = static_cast<const T *>(pre_);
    T *dx = static_cast<T *>(dx_);
#pragma omp simd
    for (int64_t c = 0; c < columns; ++c) {
        const A x = load(pre[c]);
        A share, density;
        normal(x, share, density);
        store(dx[c], load(product[c]) * (share + x * density));
    }
    pad(dx, columns, padded);
}

template <typename T, typename D, typename A = typename Accumulator<T>::type>
VITRESNAS_INLINE void incoming_row(const void *dy_, const void *scale_, void *scaled_, void *sums_,
                                   int64_t columns) {
    const D *dy = static_cast<const D *>(dy_);
    T *scaled = static_cast<T *>(scaled_);
    A *sums = static_cast<A *>(sums_);
    const A scale = scale_ ? *static_cast<const A *>(scale_) : A(1);
    if (scaled) {
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) {
            const A value = scale * load(dy[c]);
            store(scaled[c], value);
            sums[c] += value;
        }
    } else {
#pragma omp simd
        for (int64_t c = 0; c < columns; ++c) sums[c] += scale * load(dy[c]);
    }
}

#define VITRESNAS_PAIR(NAME, T, D)                                                                 \
    VITRESNAS_CLONES void bias_##NAME(const void *product, const void *bias, void *y,              \
                                      int64_t columns, int64_t padded) {                           \
        bias_row<T, D>(product, bias, y, columns, padded);                                         \
    }                                                                                              \
    VITRESNAS_CLONES void residual_##NAME(const void *product, const void *bias,                   \
                                          const void *residual, const void *scale, void *y,        \
                                          int64_t columns, int64_t padded) {                       \
        residual_row<T, D>(product, bias, residual, scale, y, columns, padded);                    \
    }                                                                                              \
    VITRESNAS_CLONES void incoming_##NAME(const void *dy, const void *scale, void *scaled,         \
                                          void *sums, int64_t columns) {                           \
        incoming_row<T, D>(dy, scale, scaled, sums, columns);                                      \
    }
#define VITRESNAS_GELU(NAME, T, D)                                                                 \
    VITRESNAS_CLONES void gelu_##NAME(const void *product, const void *bias, void *pre, void *y,   \
                                      int64_t columns, int64_t padded) {                           \
        gelu_row<T, D>(product, bias, pre, y, columns, padded);                                    \
    }                                                                                              \
    VITRESNAS_CLONES void gelu_backward_##NAME(const void *product, const void *pre, void *dx,     \
                                               int64_t columns, int64_t padded) {                  \
        gelu_backward_row<T, D>(product, pre, dx, columns, padded);                                \
    }

VITRESNAS_PAIR(float32, float, float)
VITRESNAS_PAIR(float64, double, double)
VITRESNAS_PAIR(bfloat16, bfloat16, bfloat16)
VITRESNAS_PAIR(mixed, bfloat16, float)
VITRESNAS_PAIR(widened, float, bfloat16)
VITRESNAS_GELU(float32, float, float)
VITRESNAS_GELU(float64, double, double)
VITRESNAS_GELU(bfloat16, bfloat16, bfloat16)
VITRESNAS_GELU(widened, float, bfloat16)

constexpr int64_t small = 1 << 14;  // elements below which waking threads costs more than it saves

constexpr int64_t size_of(int dtype) {
    return dtype == VITRESNAS_FLOAT64 ? 8 : dtype == VITRESNAS_FLOAT32 ? 4 : 2;
}

// The pair's function, or null where the types do not go together.
template <typename F>
F *pick(int dtype, int wide, F *float32, F *float64, F *bfloat16, F *mixed, F *widened) {
    if (dtype == VITRESNAS_BFLOAT16 && wide == VITRESNAS_FLOAT32) return mixed;
    if (dtype == VITRESNAS_FLOAT32 && wide == VITRESNAS_BFLOAT16) return widened;
    if (dtype != wide) return nullptr;
    return dtype == VITRESNAS_FLOAT32    ? float32
           : dtype == VITRESNAS_FLOAT64  ? float64
           : dtype == VITRESNAS_BFLOAT16 ? bfloat16
                                         : nullptr;
}

const char *at(const void *base, int64_t elements, int dtype) {
    return base ? static_cast<const char *>(base) + elements * size_of(dtype) : nullptr;
}
char *at(void *base, int64_t elements, int dtype) {
    return base ? static_cast<char *>(base) + elements * size_of(dtype) : nullptr;
}
const char *scale_at(const void *scale, int64_t row, int64_t per_image, int dtype) {
    return at(scale, row / per_image, dtype == VITRESNAS_FLOAT64 ? dtype : VITRESNAS_FLOAT32);
}

template <typename Row>
int each_row(int64_t rows, int64_t columns, int64_t padded, int threads, Row row) {
    if (rows < 0 || columns < 0 || padded < columns) return VITRESNAS_BAD_SHAPE;
    const int team = rows * columns < small ? 1 : threads;
#pragma omp parallel for schedule(static) num_threads(team) if (team > 1)
    for (int64_t r = 0; r < rows; ++r) row(r);
    return VITRESNAS_OK;
}

}  // namespace
}  // namespace vitresnas

using namespace vitresnas;

int vitresnas_linear_bias(int dtype, int wide, const void *product, int64_t product_stride,
                          const void *bias, void *y, int64_t y_stride, int64_t rows,
                          int64_t columns, int64_t padded, int threads) {
    const auto run = pick(dtype, wide, bias_float32, bias_float64, bias_bfloat16, bias_mixed, bias_widened);
    if (!run) return VITRESNAS_BAD_DTYPE;
    return each_row(rows, columns, padded, threads, [=](int64_t r) {
        run(at(product, r * product_stride, dtype), bias, at(y, r * y_stride, wide), columns,
            padded);
    });
}

int vitresnas_linear_gelu(int dtype, int wide, const void *product, int64_t product_stride, const void *bias,
                          void *pre, void *y, int64_t y_stride, int64_t rows, int64_t columns,
                          int64_t padded, int threads) {
    decltype(&gelu_float32) mixed = nullptr;
    const auto run = pick(dtype, wide, gelu_float32, gelu_float64, gelu_bfloat16, mixed, gelu_widened);
    if (!run) return VITRESNAS_BAD_DTYPE;
    return each_row(rows, columns, padded, threads, [=](int64_t r) {
        run(at(product, r * product_stride, dtype), bias, at(pre, r * y_stride, wide),
            at(y, r * y_stride, wide), columns, padded);
    });
}

int vitresnas_linear_residual(int dtype, int wide, const void *product, int64_t product_stride,
                              const void *bias, const void *residual, const void *scale, void *y,
                              int64_t y_stride, int64_t first, int64_t per_image, int64_t rows,
                              int64_t columns, int64_t padded, int threads) {
    const auto run =
        pick(dtype, wide, residual_float32, residual_float64, residual_bfloat16, residual_mixed,
             residual_widened);
    if (!run) return VITRESNAS_BAD_DTYPE;
    if (per_image < 1) return VITRESNAS_BAD_SHAPE;
    return each_row(rows, columns, padded, threads, [=](int64_t r) {
        run(at(product, r * product_stride, dtype), bias, at(residual, r * y_stride, wide),
            scale_at(scale, first + r, per_image, dtype), at(y, r * y_stride, wide), columns,
            padded);
    });
}

int vitresnas_linear_gelu_backward(int dtype, int wide, const void *product, int64_t product_stride,
                                   const void *pre, void *dx, int64_t dx_stride, int64_t rows,
                                   int64_t columns, int64_t padded, int threads) {
    decltype(&gelu_backward_float32) mixed = nullptr;
    const auto run = pick(dtype, wide, gelu_backward_float32, gelu_backward_float64,
                          gelu_backward_bfloat16, mixed, gelu_backward_widened);
    if (!run) return VITRESNAS_BAD_DTYPE;
    return each_row(rows, columns, padded, threads, [=](int64_t r) {
        run(at(product, r * product_stride, dtype), at(pre, r * dx_stride, wide),
            at(dx, r * dx_stride, wide), columns, padded);
    });
}

int vitresnas_linear_incoming(int dtype, int wide, const void *dy, int64_t dy_stride,
                              const void *scale, int64_t first, int64_t per_image, void *scaled,
                              int64_t scaled_stride, void *partials, void *dbias, int64_t rows,
                              int64_t columns, int threads) {
    const auto row =
        pick(dtype, wide, incoming_float32, incoming_float64, incoming_bfloat16, incoming_mixed,
             incoming_widened);
    if (!row) return VITRESNAS_BAD_DTYPE;
    if (rows < 0 || columns < 0 || per_image < 1) return VITRESNAS_BAD_SHAPE;
    const int sums = dtype == VITRESNAS_FLOAT64 ? VITRESNAS_FLOAT64 : VITRESNAS_FLOAT32;
    const int64_t runs = (rows + VITRESNAS_LINEAR_RUN - 1) / VITRESNAS_LINEAR_RUN;
    const int team = rows * columns < small ? 1 : threads;
#pragma omp parallel for schedule(static) num_threads(team) if (team > 1)
    for (int64_t run = 0; run < runs; ++run) {
        char *partial = at(partials, run * columns, sums);
        std::memset(partial, 0, columns * size_of(sums));
        const int64_t start = run * VITRESNAS_LINEAR_RUN;
        const int64_t end = std::min<int64_t>(start + VITRESNAS_LINEAR_RUN, rows);
        for (int64_t r = start; r < end; ++r) {
            row(at(dy, r * dy_stride, wide), scale_at(scale, first + r, per_image, dtype),
                at(scaled, r * scaled_stride, dtype), partial, columns);
        }
    }
    for (int64_t run = 0; run < runs; ++run) {
        const char *partial = at(static_cast<const void *>(partials), run * columns, sums);
        for (int64_t c = 0; c < columns; ++c) {
            if (sums == VITRESNAS_FLOAT64) {
                static_cast<double *>(dbias)[c] += reinterpret_cast<const double *>(partial)[c];
            } else {
                static_cast<float *>(dbias)[c] += reinterpret_cast<const float *>(partial)[c];
            }
        }
    }
    return VITRESNAS_OK;
}
