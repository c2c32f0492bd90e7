// Kernels and launchers of attention over the first heads; bodies in the .cuh files beside.

#include "cuda/variable_attention.h"

#include <cuda_runtime.h>

#include "cuda/primitives.cuh"
// After the primitives, which the bodies are written in.
#include "cuda/variable_attention_backward.cuh"
#include "cuda/variable_attention_forward.cuh"
#include "status.h"

namespace attention {
namespace {

// Plans are made for sm_90; compilers for earlier GPUs need more registers and get them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define VITRESNAS_MIN_BLOCKS(...) 1
#else
#define VITRESNAS_MIN_BLOCKS(...) __VA_ARGS__::MIN_BLOCKS
#endif

template <int T, int D, class Element>
__global__ void __launch_bounds__(ForwardPlan<T, D>::THREADS,
                                  (VITRESNAS_MIN_BLOCKS(ForwardPlan<T, D>)))
    forward_kernel(const __grid_constant__ AttentionForward arguments) {
    forward<T, D, Element>(arguments);
}

template <int T, int D, class Element>
__global__ void __launch_bounds__(BackwardPlan<T, D>::THREADS,
                                  (VITRESNAS_MIN_BLOCKS(BackwardPlan<T, D>)))
    backward_kernel(const __grid_constant__ AttentionBackward arguments) {
    backward<T, D, Element>(arguments);
}

// One compiled kernel and how it is launched.
struct Entry {
    int dtype, tokens, head_dim;
    const void *kernel;
    int problems, threads, shared_bytes;
};

#define VITRESNAS_ENTRY(DIRECTION, PLAN, DTYPE, ELEMENT, T, D)                                    \
    {DTYPE, T, D, reinterpret_cast<const void *>(&DIRECTION##_kernel<T, D, gpu::ELEMENT>),        \
     PLAN<T, D>::PROBLEMS, PLAN<T, D>::THREADS, PLAN<T, D>::SHARED_BYTES}
#define VITRESNAS_SIZES(DIRECTION, PLAN, DTYPE, ELEMENT)             \
    VITRESNAS_ENTRY(DIRECTION, PLAN, DTYPE, ELEMENT, 257, 32),       \
        VITRESNAS_ENTRY(DIRECTION, PLAN, DTYPE, ELEMENT, 65, 32),    \
        VITRESNAS_ENTRY(DIRECTION, PLAN, DTYPE, ELEMENT, 65, 48),    \
        VITRESNAS_ENTRY(DIRECTION, PLAN, DTYPE, ELEMENT, 65, 64),    \
        VITRESNAS_ENTRY(DIRECTION, PLAN, DTYPE, ELEMENT, 17, 32),    \
        VITRESNAS_ENTRY(DIRECTION, PLAN, DTYPE, ELEMENT, 17, 48),    \
        VITRESNAS_ENTRY(DIRECTION, PLAN, DTYPE, ELEMENT, 17, 64)

const Entry FORWARD[] = {
    VITRESNAS_SIZES(forward, ForwardPlan, VITRESNAS_BFLOAT16, BFloat16),
    VITRESNAS_SIZES(forward, ForwardPlan, VITRESNAS_FLOAT16, Float16),
};
const Entry BACKWARD[] = {
    VITRESNAS_SIZES(backward, BackwardPlan, VITRESNAS_BFLOAT16, BFloat16),
    VITRESNAS_SIZES(backward, BackwardPlan, VITRESNAS_FLOAT16, Float16),
};

int status(cudaError_t code) {
    cudaGetLastError();  // clears it: it must not surface in somebody else's launch
    return code == cudaSuccess ? VITRESNAS_OK : VITRESNAS_CUDA_ERROR + static_cast<int>(code);
}

template <class Arguments, int COUNT>
int launch(const Entry (&entries)[COUNT], int dtype, int64_t tokens, int64_t head_dim,
           const Arguments &arguments, void *stream) {
    const AttentionSizes &sizes = arguments.sizes;
    for (const Entry &entry : entries) {
        if (entry.dtype != dtype || entry.tokens != tokens || entry.head_dim != head_dim) continue;
        const int64_t problems = static_cast<int64_t>(sizes.images) * sizes.heads;
        if (problems == 0) return VITRESNAS_OK;
        if (sizes.images < 0 || sizes.heads < 0 || sizes.images_per_group <= 0 ||
            problems > INT32_MAX - entry.problems)
            return VITRESNAS_BAD_SHAPE;
        Arguments copy = arguments;
        void *pointers[] = {&copy};
        const auto blocks = static_cast<unsigned>(divide_up(problems, entry.problems));
        return status(cudaLaunchKernel(entry.kernel, dim3(blocks), dim3(entry.threads), pointers,
                                       entry.shared_bytes, static_cast<cudaStream_t>(stream)));
    }
    return VITRESNAS_BAD_DTYPE;
}

}  // namespace
}  // namespace attention

int vitresnas_variable_attention_cuda_prepare(void) {
    int device = 0, limit = 0;
    cudaError_t code = cudaGetDevice(&device);
    if (code == cudaSuccess)
        code = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const auto prepare = [&](const attention::Entry &entry) {
        if (code != cudaSuccess || entry.shared_bytes > limit) return;  // launching it would say so
        code = cudaFuncSetAttribute(entry.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    entry.shared_bytes);
    };
    for (const auto &entry : attention::FORWARD) prepare(entry);
    for (const auto &entry : attention::BACKWARD) prepare(entry);
    return attention::status(code);
}

int vitresnas_variable_attention_cuda_forward(int dtype, int64_t tokens, int64_t head_dim,
                                              const AttentionForward *arguments, void *stream) {
    return attention::launch(attention::FORWARD, dtype, tokens, head_dim, *arguments, stream);
}

int vitresnas_variable_attention_cuda_backward(int dtype, int64_t tokens, int64_t head_dim,
                                               const AttentionBackward *arguments, void *stream) {
    return attention::launch(attention::BACKWARD, dtype, tokens, head_dim, *arguments, stream);
}
