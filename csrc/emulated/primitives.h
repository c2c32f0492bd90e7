// The functions of cuda/primitives.cuh on the host, after the PTX manual's description of each
// instruction and independent of index/, so that a wrong index shows.
#pragma once

#include <cmath>

#include "emulated/machine.h"

#define VITRESNAS_DEVICE inline
#define VITRESNAS_UNROLL
#define VITRESNAS_UNROLL_FOUR
#define VITRESNAS_ROLLED

namespace gpu {

using Shared = uint32_t;
struct Words {
    uint32_t word[4];
};

inline emulated::Machine &machine() { return *emulated::Machine::running(); }

inline int thread() { return machine().thread(); }
inline int block() { return machine().block(); }
inline void sync_block() { machine().sync_block(); }
inline void sync_warp() { machine().sync_warp(); }
inline int thread_again() { return thread(); }
inline int block_again() { return block(); }
inline Shared shared_begin() { return 0; }

inline void copy_async(Shared to, const void *from) { machine().copy_async(to, from); }
inline void commit_copies() { machine().commit_copies(); }
template <int PENDING> void wait_copies() { machine().wait_copies(PENDING); }

// What a lane brings to an instruction that moves four 8 x 8 matrices: lanes 8 i to 8 i + 7 hold the
// addresses of the rows of matrix i. Lane l receives elements 2 (l % 4) and 2 (l % 4) + 1 of row
// l / 4 of matrix i in word i; of column l / 4 where transposed.
struct Matrices {
    Shared row;
    Words words;
};

// Reads are made by the lane that gives the address: it is the one whose order matters.
template <bool TRANSPOSED> Words load_any_matrices(const char *name, Shared row) {
    Matrices mine{row, {}};
    machine().read(row, 16);
    machine().collective(name, &mine, [](void **slots) {
        const auto lane = [&](int l) -> Matrices & { return *static_cast<Matrices *>(slots[l]); };
        for (int i = 0; i < 4; ++i) {
            Shared rows[8];
            uint16_t matrix[8][8];
            for (int r = 0; r < 8; ++r) {
                rows[r] = lane(8 * i + r).row;
                std::memcpy(matrix[r], machine().shared.data() + rows[r], 16);
            }
            machine().count_phase(rows);
            for (int l = 0; l < 32; ++l) {
                const int fixed = l / 4, pair = l % 4 * 2;
                const uint32_t low = TRANSPOSED ? matrix[pair][fixed] : matrix[fixed][pair];
                const uint32_t high = TRANSPOSED ? matrix[pair + 1][fixed] : matrix[fixed][pair + 1];
                lane(l).words.word[i] = low | high << 16;
            }
        }
    });
    return mine.words;
}
inline Words load_matrices(Shared row) { return load_any_matrices<false>("ldmatrix", row); }
inline Words load_matrices_transposed(Shared row) {
    return load_any_matrices<true>("ldmatrix.trans", row);
}
inline void store_matrices(Shared row, const Words &words) {
    Matrices mine{row, words};
    // Rows at one address (the spare row) are written by any one lane: no race within the instruction.
    machine().collective("stmatrix", &mine, [](void **slots) {
        const auto lane = [&](int l) -> Matrices & { return *static_cast<Matrices *>(slots[l]); };
        for (int i = 0; i < 4; ++i) {
            Shared rows[8];
            for (int r = 0; r < 8; ++r) {
                rows[r] = lane(8 * i + r).row;
                unsigned char *to = machine().write(rows[r], 16);
                for (int quarter = 0; quarter < 4; ++quarter)
                    std::memcpy(to + 4 * quarter, &lane(4 * r + quarter).words.word[i], 4);
            }
            machine().count_phase(rows);
        }
    });
}

inline Words load_shared(Shared at) {
    Words words;
    std::memcpy(words.word, machine().read(at, 16), 16);
    return words;
}
inline void store_shared(Shared at, float first, float second) {
    const float pair[2] = {first, second};
    std::memcpy(machine().write(at, 8), pair, 8);
}
inline Words load_global(const void *from) {
    machine().global(from, 16, false);
    Words words;
    std::memcpy(words.word, from, 16);
    return words;
}
inline void store_global(void *to, const Words &words) {
    machine().global(to, 16, true);
    std::memcpy(to, words.word, 16);
}
template <typename T> T load_global(const T *from) {
    machine().global(from, sizeof(T), false);
    return *from;
}
inline void store_global(float *to, float value) {
    machine().global(to, 4, true);
    *to = value;
}

inline float shuffle_xor(float value, int mask) {
    struct Exchange {
        float value, result;
        int mask;
    } mine{value, 0, mask};
    machine().collective("shfl.bfly", &mine, [](void **slots) {
        for (int l = 0; l < 32; ++l) {
            auto &me = *static_cast<Exchange *>(slots[l]);
            me.result = static_cast<Exchange *>(slots[l ^ me.mask])->value;
        }
    });
    return mine.result;
}
inline float exp2_approximate(float x) { return std::exp2(x); }
inline float log2_approximate(float x) { return std::log2(x); }
inline float as_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline uint32_t as_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

// c += a b on the fragments of 32 lanes. Lane l, with g = l / 4 and t = l % 4, holds of a rows g and
// g + 8 at columns 2 t, 2 t + 1 and 8 more; of b column g at rows 2 t, 2 t + 1 and 8 more; of c rows
// g and g + 8 at columns 2 t, 2 t + 1.
template <class Element> struct Multiplication {
    static void multiply(float (&c)[4], const Words &a, uint32_t b0, uint32_t b1) {
        struct Operands {
            float *c;
            const Words *a;
            uint32_t b[2];
        } mine{c, &a, {b0, b1}};
        machine().collective("mma", &mine, [](void **slots) {
            ++machine().counters.multiplications;
            float A[16][16], B[16][8];
            for (int l = 0; l < 32; ++l) {
                const auto &from = *static_cast<Operands *>(slots[l]);
                const int g = l / 4, t = l % 4;
                for (int i = 0; i < 4; ++i) {
                    const int row = g + i % 2 * 8, column = 2 * t + i / 2 * 8;
                    A[row][column] = Element::low(from.a->word[i]);
                    A[row][column + 1] = Element::high(from.a->word[i]);
                }
                for (int i = 0; i < 2; ++i) {
                    B[2 * t + i * 8][g] = Element::low(from.b[i]);
                    B[2 * t + i * 8 + 1][g] = Element::high(from.b[i]);
                }
            }
            for (int l = 0; l < 32; ++l) {
                const auto &to = *static_cast<Operands *>(slots[l]);
                for (int i = 0; i < 4; ++i) {
                    const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
                    float sum = 0;
                    for (int k = 0; k < 16; ++k) sum += A[row][k] * B[k][column];
                    to.c[i] += sum;
                }
            }
        });
    }
};

// Rounded to nearest, ties to even, as the hardware does.
struct BFloat16 : Multiplication<BFloat16> {
    static uint32_t round(float x) {
        const uint32_t bits = as_bits(x);
        if (x != x) return 0x7fff;
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
    static uint32_t pack(float low, float high) { return round(low) | round(high) << 16; }
    static float low(uint32_t pair) { return as_float(pair << 16); }
    static float high(uint32_t pair) { return as_float(pair & 0xffff0000u); }
};

struct Float16 : Multiplication<Float16> {
    static uint32_t round(float x) {
        const _Float16 half = static_cast<_Float16>(x);
        uint16_t bits;
        std::memcpy(&bits, &half, 2);
        return bits;
    }
    static uint32_t pack(float low, float high) { return round(low) | round(high) << 16; }
    static float low(uint32_t pair) {
        const uint16_t bits = static_cast<uint16_t>(pair);
        _Float16 half;
        std::memcpy(&half, &bits, 2);
        return static_cast<float>(half);
    }
    static float high(uint32_t pair) { return low(pair >> 16); }
};

}  // namespace gpu
