// Sixteen columns at a time, in vectors of the compiler's own; no header guard: masked_layer_norm.cpp
// includes this once per instruction set, in a namespace each. (Vectors in functions that are not
// compiled for AVX-512 from the start are taken apart before they are inlined into one that is.)

template <typename A> struct LanesOf;
template <> struct LanesOf<float> { typedef float type __attribute__((vector_size(64))); };
template <> struct LanesOf<double> { typedef double type __attribute__((vector_size(128))); };
template <typename A> using Lanes = typename LanesOf<A>::type;
typedef uint32_t Bits __attribute__((vector_size(64)));
typedef uint16_t HalfBits __attribute__((vector_size(32)));

template <typename To, typename From> VITRESNAS_INLINE To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "another size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

VITRESNAS_INLINE Lanes<float> take(const float *from) {
    Lanes<float> lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}
VITRESNAS_INLINE Lanes<double> take(const double *from) {
    Lanes<double> lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}
VITRESNAS_INLINE Lanes<float> take(const bfloat16 *from) {
#ifdef __AVX512BW__  // the compiler would widen in two halves
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
    const Bits bits = same_bits<Bits>(_mm512_cvtepu16_epi32(half));
#else
    HalfBits half;
    std::memcpy(&half, from, sizeof half);
    const Bits bits = __builtin_convertvector(half, Bits);
#endif
    return same_bits<Lanes<float>>(bits << 16);
}

VITRESNAS_INLINE void put(float *to, Lanes<float> lanes) { std::memcpy(to, &lanes, sizeof lanes); }
VITRESNAS_INLINE void put(double *to, Lanes<double> lanes) { std::memcpy(to, &lanes, sizeof lanes); }
VITRESNAS_INLINE void put(bfloat16 *to, Lanes<float> lanes) {
    const Bits bits = same_bits<Bits>(lanes);
    const Bits rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);  // to nearest, ties to even
    const Bits quiet = bits | 0x00400000u;  // rounding could turn a NaN into infinity
    const Bits upper = (lanes != lanes ? quiet : rounded) >> 16;
#ifdef __AVX512BW__
    const __m256i half = _mm512_cvtepi32_epi16(same_bits<__m512i>(upper));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), half);
#else
    const HalfBits half = __builtin_convertvector(upper, HalfBits);
    std::memcpy(to, &half, sizeof half);
#endif
}

// `lanes` with zero from lane n on.
VITRESNAS_INLINE Lanes<float> only(Lanes<float> lanes, int64_t n) {
    typedef int32_t Index __attribute__((vector_size(64)));
    const Index lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane < static_cast<int32_t>(n) ? lanes : Lanes<float>{};
}
VITRESNAS_INLINE Lanes<double> only(Lanes<double> lanes, int64_t n) {
    typedef int64_t Index __attribute__((vector_size(128)));
    const Index lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane < n ? lanes : Lanes<double>{};
}

// The first n columns of sixteen, the other lanes zero; `room` columns are in the row.
template <typename T> VITRESNAS_INLINE auto take_part(const T *from, int64_t n, int64_t room) {
    if (room >= UNIT) return only(take(from), n);
    T whole[UNIT] = {};
    std::memcpy(static_cast<void *>(whole), from, n * sizeof(T));
    return take(whole);
}
// Stores sixteen columns, or the `room` that are in the row.
template <typename T, typename V> VITRESNAS_INLINE void put_part(T *to, V lanes, int64_t room) {
    if (room >= UNIT) return put(to, lanes);
    T whole[UNIT];
    put(whole, lanes);
    std::memcpy(static_cast<void *>(to), whole, room * sizeof(T));
}

// The sum of all lanes, by halves: the same order on every processor.
template <int COUNT, typename A> VITRESNAS_INLINE A fold(const A *values) {
    if constexpr (COUNT == 1) {
        return values[0];
    } else {
        A sums[COUNT / 2];
        for (int lane = 0; lane < COUNT / 2; ++lane) {
            sums[lane] = values[lane] + values[lane + COUNT / 2];
        }
        return fold<COUNT / 2>(sums);
    }
}
template <typename A> VITRESNAS_INLINE A across(Lanes<A> lanes) {
    A values[UNIT];
    std::memcpy(values, &lanes, sizeof lanes);
    return fold<UNIT>(values);
}

// Zero the columns [first, last) of a row.
template <typename T> VITRESNAS_INLINE void clear(T *row, int64_t first, int64_t last) {
    using V = decltype(take(row));
    for (; first + UNIT <= last; first += UNIT) put(row + first, V{});
    for (; first < last; ++first) store(row[first], 0);
}
