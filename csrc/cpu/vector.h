// Shared by the CPU kernels: storage types, and one function body compiled per instruction set.
#pragma once

#include <cstdint>
#include <cstring>

// The loader picks the widest clone this processor has. Levels, because "arch=skylake-avx512" and its
// kind match that one processor alone and leave every newer one on SSE2. The bodies are always_inline templates, so
// that each clone compiles them with its own instruction set.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define VITRESNAS_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VITRESNAS_CLONES
#endif
#define VITRESNAS_INLINE inline __attribute__((always_inline))
#define VITRESNAS_BODY __attribute__((always_inline))  // after a lambda's parameters

namespace vitresnas {

struct bfloat16 {
    uint16_t bits;
};

// Arithmetic happens in `type`: float for float and bfloat16 storage, double for double.
template <typename T> struct Accumulator { using type = float; };
template <> struct Accumulator<double> { using type = double; };

VITRESNAS_INLINE float load(float value) { return value; }
VITRESNAS_INLINE double load(double value) { return value; }
VITRESNAS_INLINE float load(bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

VITRESNAS_INLINE void store(float &target, float value) { target = value; }
VITRESNAS_INLINE void store(double &target, double value) { target = value; }
VITRESNAS_INLINE void store(bfloat16 &target, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);  // to nearest, ties to even
    const uint32_t quiet = bits | 0x00400000u;  // rounding could turn a NaN into infinity
    const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    target.bits = static_cast<uint16_t>((is_nan ? quiet : rounded) >> 16);
}

// The sum of term(c) over the columns c of [0, n). Vectorised, in several accumulators, only under the
// flags that CMakeLists.txt sets for these files.
template <typename A, typename Term> VITRESNAS_INLINE A total(int64_t n, Term term) {
    A sum = 0;
    for (int64_t c = 0; c < n; ++c) sum += term(c);
    return sum;
}

}  // namespace vitresnas
