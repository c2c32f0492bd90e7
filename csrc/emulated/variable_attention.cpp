// The attention kernels' own sources on emulated warps, behind the launchers' own signatures. Built
// by the tests alone; see emulated/machine.h for what it checks on the way.

#include <cstdio>

#include "emulated/primitives.h"
// After the primitives, which the bodies are written in.
#include "cuda/variable_attention_backward.cuh"
#include "cuda/variable_attention_forward.cuh"
#include "status.h"

namespace {

char message[256] = "";
emulated::Counters counters;
uint32_t seed = 0;

constexpr int EMULATION_FAILED = 900;  // no status of the launchers

template <class Plan>
int run(emulated::Machine &machine, const AttentionSizes &sizes,
        const std::function<void()> &body) {
    const int problems = sizes.images * sizes.heads;
    message[0] = '\0';
    emulated::Machine::running() = &machine;
    try {
        for (int block = 0; block < attention::divide_up(problems, Plan::PROBLEMS); ++block)
            machine.run(block, Plan::THREADS, Plan::SHARED_BYTES, seed + block, body);
    } catch (const std::exception &error) {
        std::snprintf(message, sizeof message, "%s", error.what());
    }
    counters = machine.counters;
    return message[0] ? EMULATION_FAILED : VITRESNAS_OK;
}

template <int T, int D, class Element> int forward(const AttentionForward &a) {
    const int64_t rows = static_cast<int64_t>(a.sizes.images) * T, head = a.sizes.heads * D * 2;
    emulated::Machine machine;
    machine.add(a.qkv, rows * 3 * head, false);
    machine.add(a.heads, a.sizes.images / a.sizes.images_per_group * 4, false);
    machine.add(a.out, rows * head, true);
    machine.add(a.lse, rows * a.sizes.heads * 4, true);
    return run<attention::ForwardPlan<T, D>>(machine, a.sizes,
                                             [&] { attention::forward<T, D, Element>(a); });
}

template <int T, int D, class Element> int backward(const AttentionBackward &a) {
    const int64_t rows = static_cast<int64_t>(a.sizes.images) * T, head = a.sizes.heads * D * 2;
    emulated::Machine machine;
    machine.add(a.dout, rows * head, false);
    machine.add(a.qkv, rows * 3 * head, false);
    machine.add(a.out, rows * head, false);
    machine.add(a.lse, rows * a.sizes.heads * 4, false);
    machine.add(a.heads, a.sizes.images / a.sizes.images_per_group * 4, false);
    machine.add(a.dqkv, rows * 3 * head, true);
    return run<attention::BackwardPlan<T, D>>(machine, a.sizes,
                                              [&] { attention::backward<T, D, Element>(a); });
}

#define VITRESNAS_TRY(DIRECTION, T, D)                                      \
    if (tokens == T && head_dim == D)                                       \
        return dtype == VITRESNAS_BFLOAT16 ? DIRECTION<T, D, gpu::BFloat16>(a) \
                                           : DIRECTION<T, D, gpu::Float16>(a);
#ifndef VITRESNAS_SIZES
#define VITRESNAS_SIZES(DIRECTION)                                      \
    VITRESNAS_TRY(DIRECTION, 257, 32) VITRESNAS_TRY(DIRECTION, 65, 32)  \
    VITRESNAS_TRY(DIRECTION, 65, 48) VITRESNAS_TRY(DIRECTION, 65, 64)   \
    VITRESNAS_TRY(DIRECTION, 17, 32) VITRESNAS_TRY(DIRECTION, 17, 48)   \
    VITRESNAS_TRY(DIRECTION, 17, 64)
#endif

AttentionSizes sizes(int64_t images, int64_t groups, int64_t heads, double scale) {
    return {static_cast<int>(images), std::max(1, static_cast<int>(images / groups)),
            static_cast<int>(heads),
            static_cast<float>(scale)};
}

}  // namespace

extern "C" {

const char *emulated_message() { return message; }
void emulated_seed(uint32_t value) { seed = value; }
void emulated_counters(int64_t *phases, int64_t *wavefronts, int64_t *multiplications) {
    *phases = counters.matrix_phases;
    *wavefronts = counters.matrix_wavefronts;
    *multiplications = counters.multiplications;
}

int emulated_forward(int dtype, const void *qkv, const int32_t *heads, void *out, float *lse,
                     int64_t images, int64_t groups, int64_t tokens, int64_t storage_heads,
                     int64_t head_dim, double scale) {
    const AttentionForward a{qkv, heads, out, lse, sizes(images, groups, storage_heads, scale)};
    VITRESNAS_SIZES(forward)
    return VITRESNAS_BAD_SHAPE;
}

int emulated_backward(int dtype, const void *dout, const void *qkv, const void *out,
                      const float *lse, const int32_t *heads, void *dqkv, int64_t images,
                      int64_t groups, int64_t tokens, int64_t storage_heads, int64_t head_dim,
                      double scale) {
    const AttentionBackward a{dout, qkv, out, lse, heads, dqkv,
                              sizes(images, groups, storage_heads, scale)};
    VITRESNAS_SIZES(backward)
    return VITRESNAS_BAD_SHAPE;
}
}
