// What the attention kernels ask of the hardware, one instruction per function. The same names exist
// on the host in emulated/primitives.h, where lanes take turns; kernel bodies use nothing else.
// Shared memory is addressed in bytes from the block's own first byte on.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#define VITRESNAS_DEVICE __device__ __forceinline__
#define VITRESNAS_UNROLL _Pragma("unroll")
#define VITRESNAS_UNROLL_FOUR _Pragma("unroll 4")
#define VITRESNAS_ROLLED _Pragma("unroll 1")

namespace gpu {

using Shared = uint32_t;
struct Words {
    uint32_t word[4];
};

VITRESNAS_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
VITRESNAS_DEVICE int block() { return static_cast<int>(blockIdx.x); }
VITRESNAS_DEVICE void sync_block() { __syncthreads(); }
VITRESNAS_DEVICE void sync_warp() { __syncwarp(); }

// thread() and block() read anew: what is computed from them is computed again where it is needed
// rather than kept in registers all along.
VITRESNAS_DEVICE int thread_again() {
    int index;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
    return index;
}
VITRESNAS_DEVICE int block_again() {
    int index;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(index));
    return index;
}

VITRESNAS_DEVICE Shared shared_begin() {
    extern __shared__ __align__(128) unsigned char shared[];
    return static_cast<Shared>(__cvta_generic_to_shared(shared));
}

// 16 bytes from global to shared memory, past the registers and the L1 cache.
VITRESNAS_DEVICE void copy_async(Shared to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
VITRESNAS_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most PENDING of this thread's committed groups are under way.
template <int PENDING> VITRESNAS_DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// volatile with a memory clobber: must not move across a barrier or a write of the same bytes.
VITRESNAS_DEVICE Words load_matrices(Shared row) {
    Words r;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.word[0]), "=r"(r.word[1]), "=r"(r.word[2]), "=r"(r.word[3])
                 : "r"(row)
                 : "memory");
    return r;
}
VITRESNAS_DEVICE Words load_matrices_transposed(Shared row) {
    Words r;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.word[0]), "=r"(r.word[1]), "=r"(r.word[2]), "=r"(r.word[3])
                 : "r"(row)
                 : "memory");
    return r;
}
VITRESNAS_DEVICE void store_matrices(Shared row, const Words &r) {
#if __CUDA_ARCH__ >= 900
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
                 "r"(r.word[0]), "r"(r.word[1]), "r"(r.word[2]), "r"(r.word[3])
                 : "memory");
#else
    for (int i = 0; i < 4; ++i) {
        const int lane = threadIdx.x % 32;
        const Shared to = __shfl_sync(0xffffffffu, row, i * 8 + lane / 4) + lane % 4 * 4;
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(r.word[i]) : "memory");
    }
#endif
}

VITRESNAS_DEVICE Words load_shared(Shared at) {
    Words r;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.word[0]), "=r"(r.word[1]), "=r"(r.word[2]), "=r"(r.word[3])
                 : "r"(at)
                 : "memory");
    return r;
}
VITRESNAS_DEVICE void store_shared(Shared at, float first, float second) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(first), "f"(second) : "memory");
}
VITRESNAS_DEVICE Words load_global(const void *from) {
    const uint4 v = __ldg(static_cast<const uint4 *>(from));
    return {{v.x, v.y, v.z, v.w}};
}
VITRESNAS_DEVICE void store_global(void *to, const Words &v) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.word[0]),
                 "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3])
                 : "memory");
}
VITRESNAS_DEVICE float load_global(const float *from) { return __ldg(from); }
VITRESNAS_DEVICE int32_t load_global(const int32_t *from) { return __ldg(from); }
VITRESNAS_DEVICE void store_global(float *to, float value) { *to = value; }

VITRESNAS_DEVICE float shuffle_xor(float value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
VITRESNAS_DEVICE float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
VITRESNAS_DEVICE float log2_approximate(float x) { return __log2f(x); }
VITRESNAS_DEVICE float as_float(uint32_t bits) { return __uint_as_float(bits); }

struct BFloat16 {
    static VITRESNAS_DEVICE uint32_t pack(float low, float high) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        return reinterpret_cast<const uint32_t &>(pair);
    }
    static VITRESNAS_DEVICE float low(uint32_t pair) { return __uint_as_float(pair << 16); }
    static VITRESNAS_DEVICE float high(uint32_t pair) {
        return __uint_as_float(pair & 0xffff0000u);
    }
    // c (16 x 8) += a (16 x 16) b (16 x 8)
    static VITRESNAS_DEVICE void multiply(float (&c)[4], const Words &a, uint32_t b0, uint32_t b1) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b0), "r"(b1));
    }
};

struct Float16 {
    static VITRESNAS_DEVICE uint32_t pack(float low, float high) {
        const __half2 pair = __floats2half2_rn(low, high);
        return reinterpret_cast<const uint32_t &>(pair);
    }
    static VITRESNAS_DEVICE float low(uint32_t pair) {
        return __low2float(reinterpret_cast<const __half2 &>(pair));
    }
    static VITRESNAS_DEVICE float high(uint32_t pair) {
        return __high2float(reinterpret_cast<const __half2 &>(pair));
    }
    static VITRESNAS_DEVICE void multiply(float (&c)[4], const Words &a, uint32_t b0, uint32_t b1) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b0), "r"(b1));
    }
};

}  // namespace gpu
