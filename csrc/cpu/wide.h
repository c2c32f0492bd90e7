// One processor register full of numbers, and what the attention kernels do with it.
//
// GCC's vector extension: the same source becomes AVX-512, AVX2 or SSE2, by the size of the vector
// and by the target of the function that everything here is inlined into.
#pragma once

#include <cmath>
#include <type_traits>

#include "cpu/vector.h"

namespace vitresnas {

// Unsigned words to and from bfloat16, as many as LANES. Not a template: GCC 12 refuses the builtin
// on vectors whose size is a template parameter.
template <int LANES> struct Halves;
#define VITRESNAS_HALVES(LANES)                                                                    \
    template <> struct Halves<LANES> {                                                             \
        typedef uint32_t Words __attribute__((vector_size(4 * LANES)));                            \
        typedef uint16_t Narrow __attribute__((vector_size(2 * LANES)));                           \
        typedef uint16_t Loose __attribute__((vector_size(2 * LANES), aligned(2), may_alias));     \
        static VITRESNAS_INLINE Words load(const bfloat16 *from) {                                 \
            const Narrow bits = *reinterpret_cast<const Loose *>(from);                            \
            return __builtin_convertvector(bits, Words);                                           \
        }                                                                                          \
        static VITRESNAS_INLINE void store(bfloat16 *to, Words bits) {                             \
            *reinterpret_cast<Loose *>(to) = __builtin_convertvector(bits, Narrow);                \
        }                                                                                          \
    };
VITRESNAS_HALVES(4)
VITRESNAS_HALVES(8)
VITRESNAS_HALVES(16)

// A: float or double; BYTES: 64, 32 or 16.
template <typename A, int BYTES> struct Wide {
    static constexpr int lanes = BYTES / sizeof(A);
    using Bits = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
    typedef A Vector __attribute__((vector_size(BYTES)));
    typedef Bits Integers __attribute__((vector_size(BYTES)));
    // Anywhere in memory, whatever lies there.
    typedef A Loose __attribute__((vector_size(BYTES), aligned(sizeof(A)), may_alias));

    static VITRESNAS_INLINE Vector load(const A *from) {
        return *reinterpret_cast<const Loose *>(from);
    }
    static VITRESNAS_INLINE void store(A *to, Vector x) { *reinterpret_cast<Loose *>(to) = x; }

    static VITRESNAS_INLINE Vector load(const bfloat16 *from) {
        return reinterpret_cast<Vector>(Halves<lanes>::load(from) << 16);
    }
    static VITRESNAS_INLINE void store(bfloat16 *to, Vector x) {
        using Words = typename Halves<lanes>::Words;
        const Words bits = reinterpret_cast<Words>(x);
        const Words rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);  // to nearest, ties to even
        const Words quiet = bits | 0x00400000u;  // rounding could turn a NaN into infinity
        const Words chosen = (bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded;
        Halves<lanes>::store(to, chosen >> 16);
    }

    static VITRESNAS_INLINE Vector broadcast(A x) { return x - Vector{}; }  // -0.0 stays -0.0
    static VITRESNAS_INLINE Vector larger(Vector x, Vector y) { return x > y ? x : y; }
    static VITRESNAS_INLINE Vector first(int64_t count, Vector x, A otherwise) {
        Integers lane{};
        for (int i = 0; i < lanes; ++i) lane[i] = i;
        return lane < static_cast<Bits>(count) ? x : broadcast(otherwise);
    }

    static VITRESNAS_INLINE Vector swap(Vector x, int distance) {
        Integers order{};
        for (int i = 0; i < lanes; ++i) order[i] = i ^ distance;
        return __builtin_shuffle(x, order);
    }
    static VITRESNAS_INLINE A sum(Vector x) {
        if constexpr (lanes >= 16) x += swap(x, 8);
        if constexpr (lanes >= 8) x += swap(x, 4);
        if constexpr (lanes >= 4) x += swap(x, 2);
        return x[0] + x[1];
    }
    static VITRESNAS_INLINE A maximum(Vector x) {
        if constexpr (lanes >= 16) x = larger(x, swap(x, 8));
        if constexpr (lanes >= 8) x = larger(x, swap(x, 4));
        if constexpr (lanes >= 4) x = larger(x, swap(x, 2));
        return x[0] > x[1] ? x[0] : x[1];
    }

    // 2^x; below the smallest normal number 0. Floats are off by 1.2 units in the last place at most.
    static VITRESNAS_INLINE Vector exp2(Vector x) {
        if constexpr (sizeof(A) == 8) {
            for (int i = 0; i < lanes; ++i) x[i] = std::exp2(x[i]);
            return x;
        } else {
            const Integers low = x < -126.0f;
            x = low ? broadcast(-126.0f) : x;
            constexpr float round = 12582912.0f;  // 1.5 * 2^23: its last bits are whole numbers
            const Vector shifted = x + round;
            const Vector r = x - (shifted - round);  // from -1/2 to 1/2
            Vector p = r * C6 + C5;
            p = p * r + C4;
            p = p * r + C3;
            p = p * r + C2;
            p = p * r + C1;
            p = p * r + 1.0f;
            p = reinterpret_cast<Vector>((reinterpret_cast<Integers>(shifted) << 23) +
                                         reinterpret_cast<Integers>(p));
            return low ? Vector{} : p;
        }
    }

    // lanes x lanes numbers, rows `from_row` apart, to their transpose. Each round interleaves row i
    // with row i + lanes/2, which rotates the bits of (row, column) by one; log2(lanes) rounds swap.
    static VITRESNAS_INLINE void transpose(const A *from, int64_t from_row, A *to, int64_t to_row) {
        Vector x[lanes], y[lanes];
        Integers low{}, high{};
        for (int i = 0; i < lanes; ++i) {
            low[i] = i / 2 + (i % 2) * lanes;
            high[i] = low[i] + lanes / 2;
        }
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) x[i] = load(from + i * from_row);
#pragma GCC unroll 4
        for (int round = 1; round < lanes; round *= 2) {
#pragma GCC unroll 16
            for (int i = 0; i < lanes / 2; ++i) {
                y[2 * i] = __builtin_shuffle(x[i], x[i + lanes / 2], low);
                y[2 * i + 1] = __builtin_shuffle(x[i], x[i + lanes / 2], high);
            }
#pragma GCC unroll 16
            for (int i = 0; i < lanes; ++i) x[i] = y[i];
        }
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) store(to + i * to_row, x[i]);
    }

   private:
    // The best such polynomial for 2^r by relative error: 1.6e-8 with these rounded coefficients.
    static constexpr float C1 = 0x1.62e430p-1f, C2 = 0x1.ebfbdcp-3f, C3 = 0x1.c6aee8p-5f,
                           C4 = 0x1.3b2d4cp-7f, C5 = 0x1.5f3e54p-10f, C6 = 0x1.41fbb4p-13f;
};

}  // namespace vitresnas
