// Rows of activations: converted copies, and the zeros up to the next multiple of 16 that ops promise.
#pragma once

#include <algorithm>

#include "cpu/vector.h"
#include "status.h"

// The clone of a function for a storage type that known() knows.
#define VITRESNAS_BY_DTYPE(NAME, DTYPE)                                                            \
    ((DTYPE) == VITRESNAS_FLOAT32   ? NAME##_float32                                               \
     : (DTYPE) == VITRESNAS_FLOAT64 ? NAME##_float64                                               \
                                    : NAME##_bfloat16)

namespace vitresnas {

inline bool known(int dtype) { return dtype >= VITRESNAS_FLOAT32 && dtype <= VITRESNAS_BFLOAT16; }

// Threads for so many elements: below 2^15 waking them costs more than it saves.
inline int team(int threads, int64_t elements) { return elements < (1 << 15) ? 1 : threads; }

VITRESNAS_INLINE int64_t next_16(int64_t width, int64_t channels) {
    return std::min((width + 15) / 16 * 16, channels);
}

// Zeros in columns [width, next multiple of 16) of a row of `channels`; what lies beyond stays as it is.
template <typename T> VITRESNAS_INLINE void settle(T *row, int64_t width, int64_t channels) {
    std::memset(static_cast<void *>(row + width), 0,
                (next_16(width, channels) - width) * sizeof(T));
}

// Storage to accumulator type; a null source is a row of zeros.
template <typename T, typename A>
VITRESNAS_INLINE void copy_row(const T *source, A *target, int64_t width) {
    if (!source) {
        std::memset(static_cast<void *>(target), 0, width * sizeof(A));
        return;
    }
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) target[c] = load(source[c]);
}

}  // namespace vitresnas
