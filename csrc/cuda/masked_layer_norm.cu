// Masked layer normalisation on a GPU; the mathematics is in vitresnas/ops/masked_layer_norm.py.
//
// A warp owns a row and keeps it in registers: memory is read once and written once, the statistics
// take two passes over registers. Loads are 16 bytes wide and reach to the next multiple of 16 columns;
// what is not active is masked off in registers. No atomics: a block of the backward pass sums its rows'
// shares of dweight and dbias, a second kernel adds the blocks' sums in a fixed order.

#include "cuda/masked_layer_norm.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "index/rows.h"
#include "status.h"

namespace vitresnas {
namespace {

constexpr int WARPS = 4, THREADS = 32 * WARPS;
constexpr int SLICES = 32;  // of the blocks' sums, in the kernel that adds them

constexpr int E = 8;  // neighbouring columns that a lane holds: 16 bytes of bfloat16, 32 of float

template <int COUNT> __device__ __forceinline__ void take(const float *from, float (&to)[COUNT]) {
#pragma unroll
    for (int e = 0; e < COUNT; e += 4) {
        const float4 four = *reinterpret_cast<const float4 *>(from + e);
        to[e] = four.x, to[e + 1] = four.y, to[e + 2] = four.z, to[e + 3] = four.w;
    }
}
__device__ __forceinline__ void take(const __nv_bfloat16 *from, float (&to)[E]) {
    const uint4 bits = *reinterpret_cast<const uint4 *>(from);
    const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int pair = 0; pair < E / 2; ++pair) {
        to[2 * pair] = __uint_as_float(pairs[pair] << 16);
        to[2 * pair + 1] = __uint_as_float(pairs[pair] & 0xFFFF0000u);
    }
}

template <int COUNT> __device__ __forceinline__ void put(float *to, const float (&from)[COUNT]) {
#pragma unroll
    for (int e = 0; e < COUNT; e += 4) {
        *reinterpret_cast<float4 *>(to + e) =
            make_float4(from[e], from[e + 1], from[e + 2], from[e + 3]);
    }
}
__device__ __forceinline__ void put(__nv_bfloat16 *to, const float (&from)[E]) {
    uint32_t pairs[4];
#pragma unroll
    for (int pair = 0; pair < E / 2; ++pair) {
        const __nv_bfloat162 two = __floats2bfloat162_rn(from[2 * pair], from[2 * pair + 1]);
        pairs[pair] = *reinterpret_cast<const uint32_t *>(&two);
    }
    *reinterpret_cast<uint4 *>(to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

// The sum over a warp, in every lane; the order is always the same.
__device__ __forceinline__ float across(float value) {
#pragma unroll
    for (int distance = 16; distance; distance /= 2) {
        value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    }
    return value;
}

struct Columns {
    int active, near;  // that count; that may be loaded
};

__device__ __forceinline__ Columns columns_of(const int32_t *widths, int group, int channels) {
    const int width = __ldg(widths + group);
    return {static_cast<int>(at_most(width < 0 ? 0 : width, channels)),
            static_cast<int>(padded_width(width, channels))};
}

// Zero from column `active` on; `column` is that of the first element.
__device__ __forceinline__ void only(float (&values)[E], int column, int active) {
#pragma unroll
    for (int e = 0; e < E; ++e) values[e] = column + e < active ? values[e] : 0.0f;
}

// Grid (rows of a group by WARPS, groups). N: columns per lane, 32 N of them at least `channels`.
template <typename X, typename Y, int N>
__global__ void __launch_bounds__(THREADS)
    forward_rows(const X *__restrict__ x, const float *__restrict__ weight,
                 const float *__restrict__ bias, const int32_t *__restrict__ widths,
                 Y *__restrict__ y, float *__restrict__ mean_out, float *__restrict__ rstd_out,
                 int per_group, int channels, float eps, bool padded) {
    constexpr int VECTORS = N / E;
    const int lane = threadIdx.x % 32, group = blockIdx.y;
    const int inside = blockIdx.x * WARPS + threadIdx.x / 32;
    if (inside >= per_group) return;  // a whole warp
    const Columns columns = columns_of(widths, group, channels);
    const int end = static_cast<int>(written_width(columns.active, channels, padded));
    const float scale = 1.0f / static_cast<float>(columns.active > 1 ? columns.active : 1);
    const int64_t row = static_cast<int64_t>(group) * per_group + inside;
    x += row * channels;
    y += row * channels;

    float values[VECTORS][E] = {};
    float sum = 0.0f, square = 0.0f;
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
        const int column = (v * 32 + lane) * E;
        if (column < columns.near) take(x + column, values[v]);
    }
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
        only(values[v], (v * 32 + lane) * E, columns.active);
#pragma unroll
        for (int e = 0; e < E; ++e) sum += values[v][e];
    }
    const float mean = across(sum) * scale;
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
#pragma unroll
        for (int e = 0; e < E; ++e) values[v][e] -= mean;
        only(values[v], (v * 32 + lane) * E, columns.active);
#pragma unroll
        for (int e = 0; e < E; ++e) square += values[v][e] * values[v][e];
    }
    const float rstd = 1.0f / sqrtf(across(square) * scale + eps);
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
        const int column = (v * 32 + lane) * E;
        if (column >= end) continue;
        float out[E] = {};
        if (column < columns.near) {
            float w[E], b[E];
            take(weight + column, w);
            take(bias + column, b);
#pragma unroll
            for (int e = 0; e < E; ++e) out[e] = values[v][e] * rstd * w[e] + b[e];
            only(out, column, columns.active);
        }
        put(y + column, out);
    }
    if (lane == 0) {
        mean_out[row] = mean;
        rstd_out[row] = rstd;
    }
}

// Blocks of the backward pass on a multiprocessor. Three leave 168 registers a thread; before sm_90 the
// widest rows would spill two of them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
template <int N> constexpr int RESIDENT = N == 32 ? 2 : 3;
#else
template <int N> constexpr int RESIDENT = 3;
#endif

// Adds a column's shares, one from each warp of a block, in the warps' order.
template <int N>
__device__ __forceinline__ void add_warps(const float (&shares)[N / E][E],
                                          float (&room)[WARPS][32 * N], float *partial, int near) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();  // nobody reads the last use of the room any more
#pragma unroll
    for (int v = 0; v < N / E; ++v) put(&room[warp][(v * 32 + lane) * E], shares[v]);
    __syncthreads();
    for (int column = threadIdx.x; column < near; column += THREADS) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += room[w][column];
        partial[column] = sum;
    }
}

// Grid (chunks of a group's rows, groups); partials: (groups * chunks, 2, channels).
template <typename X, typename Y, int N>
__global__ void __launch_bounds__(THREADS, RESIDENT<N>)
    backward_rows(const Y *__restrict__ dy, const X *__restrict__ x,
                  const float *__restrict__ mean_in, const float *__restrict__ rstd_in,
                  const float *__restrict__ weight, const int32_t *__restrict__ widths,
                  const X *__restrict__ residual, const int32_t *__restrict__ skip_widths,
                  X *__restrict__ dx, float *__restrict__ partials, int per_group, int channels,
                  bool padded) {
    constexpr int VECTORS = N / E;
    __shared__ __align__(16) float room[WARPS][32 * N];
    __shared__ __align__(16) float scales[32 * N];  // weight, zero where inactive: registers are dear
    const int lane = threadIdx.x % 32, group = blockIdx.y;
    const Columns columns = columns_of(widths, group, channels);
    for (int column = threadIdx.x; column < 32 * N; column += THREADS) {
        scales[column] = column < columns.active ? weight[column] : 0.0f;
    }
    __syncthreads();
    Columns passed = residual ? columns_of(skip_widths, group, channels) : columns;
    if (passed.active < columns.active) passed = columns;
    const int end = static_cast<int>(written_width(passed.active, channels, padded));
    const float scale = 1.0f / static_cast<float>(columns.active > 1 ? columns.active : 1);
    const Span rows = chunk_of_rows(group, blockIdx.x, per_group, gridDim.x);

    float dweight[VECTORS][E] = {}, dbias[VECTORS][E] = {};
    for (int64_t row = rows.first + threadIdx.x / 32; row < rows.last; row += WARPS) {
        const int64_t at = row * channels;
        const float mean = mean_in[row], rstd = rstd_in[row];
        float gradient[VECTORS][E] = {}, xhat[VECTORS][E] = {};
        float first = 0.0f, second = 0.0f;
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            const int column = (v * 32 + lane) * E;
            if (column < columns.near) {
                take(x + at + column, xhat[v]);
                take(dy + at + column, gradient[v]);
            }
        }
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            const int column = (v * 32 + lane) * E;
            float w[E];
            take(scales + column, w);
            only(gradient[v], column, columns.active);
#pragma unroll
            for (int e = 0; e < E; ++e) xhat[v][e] = (xhat[v][e] - mean) * rstd;
            only(xhat[v], column, columns.active);
#pragma unroll
            for (int e = 0; e < E; ++e) {
                dweight[v][e] += gradient[v][e] * xhat[v][e];
                dbias[v][e] += gradient[v][e];
                gradient[v][e] *= w[e];
                first += gradient[v][e];
                second += gradient[v][e] * xhat[v][e];
            }
        }
        first = across(first) * scale;
        second = across(second) * scale;
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            const int column = (v * 32 + lane) * E;
            if (column >= end) continue;
            float out[E], more[E] = {};
            if (residual && column < passed.near) take(residual + at + column, more);
            only(more, column, passed.active);
#pragma unroll
            for (int e = 0; e < E; ++e) {
                out[e] = rstd * (gradient[v][e] - first - xhat[v][e] * second);
            }
            only(out, column, columns.active);
#pragma unroll
            for (int e = 0; e < E; ++e) out[e] += more[e];
            put(dx + at + column, out);
        }
    }
    float *partial = partials + (static_cast<int64_t>(group) * gridDim.x + blockIdx.x) * 2 * channels;
    add_warps<N>(dweight, room, partial, columns.near);
    add_warps<N>(dbias, room, partial + channels, columns.near);
}

// Grid (columns by 128, 2); thread (four columns, slice). Of a partial only what its group reaches
// was written.
__global__ void __launch_bounds__(32 * SLICES)
    backward_sum(const float *__restrict__ partials, const int32_t *__restrict__ widths,
                 float *__restrict__ dweight, float *__restrict__ dbias, int parts, int chunks,
                 int channels) {
    __shared__ __align__(16) float sums[SLICES][32][4];
    const int column = (blockIdx.x * 32 + threadIdx.x) * 4;
    const float *from = partials + blockIdx.y * channels + column;
    float sum[4] = {};
    if (column < channels) {
        for (int part = threadIdx.y; part < parts; part += SLICES) {
            if (column >= columns_of(widths, part / chunks, channels).near) continue;
            float more[4];
            take(from + static_cast<int64_t>(part) * 2 * channels, more);
#pragma unroll
            for (int e = 0; e < 4; ++e) sum[e] += more[e];
        }
    }
    put(sums[threadIdx.y][threadIdx.x], sum);
    __syncthreads();
    if (threadIdx.y || column >= channels) return;
    for (int slice = 1; slice < SLICES; ++slice) {
        float more[4];
        take(sums[slice][threadIdx.x], more);
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[e] += more[e];
    }
    put((blockIdx.y ? dbias : dweight) + column, sum);
}

int done() {
    const cudaError_t code = cudaGetLastError();  // and leaves nothing behind for somebody else
    return code == cudaSuccess ? VITRESNAS_OK : VITRESNAS_CUDA_ERROR + static_cast<int>(code);
}

int check(int64_t rows, int64_t channels, int64_t groups, int64_t chunks) {
    const bool fits = channels > 0 && channels <= 1024 && channels % 8 == 0 && rows >= 0 &&
                      groups > 0 && groups <= 65535 && rows % groups == 0 && chunks > 0 &&
                      rows / groups <= INT32_MAX && groups * chunks <= INT32_MAX;
    return fits ? VITRESNAS_OK : VITRESNAS_BAD_SHAPE;
}

// Calls `launch` with the storage types and the columns per lane as types.
template <typename X, typename Y, typename Launch> void by_columns(int64_t channels, Launch launch) {
    if (channels <= 256) return launch(X{}, Y{}, std::integral_constant<int, 8>());
    if (channels <= 512) return launch(X{}, Y{}, std::integral_constant<int, 16>());
    launch(X{}, Y{}, std::integral_constant<int, 32>());
}

template <typename Launch>
int dispatch(int x_dtype, int y_dtype, int64_t channels, Launch launch) {
    const auto known = [](int t) { return t == VITRESNAS_FLOAT32 || t == VITRESNAS_BFLOAT16; };
    if (!known(x_dtype) || !known(y_dtype)) return VITRESNAS_BAD_DTYPE;
    const bool x = x_dtype == VITRESNAS_BFLOAT16, y = y_dtype == VITRESNAS_BFLOAT16;
    if (!x && !y) by_columns<float, float>(channels, launch);
    if (!x && y) by_columns<float, __nv_bfloat16>(channels, launch);
    if (x && !y) by_columns<__nv_bfloat16, float>(channels, launch);
    if (x && y) by_columns<__nv_bfloat16, __nv_bfloat16>(channels, launch);
    return done();
}

}  // namespace
}  // namespace vitresnas

int vitresnas_masked_layer_norm_forward_cuda(int x_dtype, int y_dtype, const void *x,
                                             const void *weight, const void *bias,
                                             const int32_t *widths, void *y, void *mean,
                                             void *rstd, int64_t rows, int64_t channels,
                                             int64_t groups, double eps, bool padded,
                                             uintptr_t stream) {
    using namespace vitresnas;
    if (const int status = check(rows, channels, groups, 1)) return status;
    if (!rows) return VITRESNAS_OK;
    const int per_group = static_cast<int>(rows / groups);
    const dim3 grid((per_group + WARPS - 1) / WARPS, static_cast<unsigned>(groups));
    return dispatch(x_dtype, y_dtype, channels, [&](auto of_x, auto of_y, auto n) {
        using X = decltype(of_x);
        using Y = decltype(of_y);
        forward_rows<X, Y, decltype(n)::value>
            <<<grid, THREADS, 0, reinterpret_cast<cudaStream_t>(stream)>>>(
                static_cast<const X *>(x), static_cast<const float *>(weight),
                static_cast<const float *>(bias), widths, static_cast<Y *>(y),
                static_cast<float *>(mean), static_cast<float *>(rstd), per_group,
                static_cast<int>(channels), static_cast<float>(eps), padded);
    });
}

int vitresnas_masked_layer_norm_backward_cuda(int x_dtype, int y_dtype, const void *dy,
                                              const void *x, const void *mean, const void *rstd,
                                              const void *weight, const int32_t *widths,
                                              const void *residual, const int32_t *skip_widths,
                                              void *dx, void *partials, void *dweight, void *dbias,
                                              int64_t rows, int64_t channels, int64_t groups,
                                              int64_t chunks, bool padded, uintptr_t stream) {
    using namespace vitresnas;
    if (const int status = check(rows, channels, groups, chunks)) return status;
    const int per_group = static_cast<int>(rows / groups), wide = static_cast<int>(channels);
    const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>(groups));
    const auto queue = reinterpret_cast<cudaStream_t>(stream);
    const int status = dispatch(x_dtype, y_dtype, channels, [&](auto of_x, auto of_y, auto n) {
        using X = decltype(of_x);
        using Y = decltype(of_y);
        backward_rows<X, Y, decltype(n)::value><<<grid, THREADS, 0, queue>>>(
            static_cast<const Y *>(dy), static_cast<const X *>(x),
            static_cast<const float *>(mean), static_cast<const float *>(rstd),
            static_cast<const float *>(weight), widths, static_cast<const X *>(residual),
            skip_widths, static_cast<X *>(dx), static_cast<float *>(partials), per_group, wide,
            padded);
    });
    if (status) return status;
    backward_sum<<<dim3((wide + 127) / 128, 2), dim3(32, SLICES), 0, queue>>>(
        static_cast<const float *>(partials), widths, static_cast<float *>(dweight),
        static_cast<float *>(dbias), static_cast<int>(groups * chunks), static_cast<int>(chunks),
        wide);
    return done();
}
