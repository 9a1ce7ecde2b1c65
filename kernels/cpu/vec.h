// Vectors as wide as the machine's registers, their elements' types, and exp and log on them.
//
// Written with the vector extensions that GCC and Clang share, so that one source serves AVX-512,
// AVX2, NEON and plain SSE2.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
constexpr int VEC = 16;
#elif defined(__AVX2__)
constexpr int VEC = 8;
#else
constexpr int VEC = 4;
#endif

typedef float Vec __attribute__((vector_size(VEC * 4)));
typedef int32_t VecI __attribute__((vector_size(VEC * 4)));
typedef uint32_t VecU __attribute__((vector_size(VEC * 4)));
typedef uint16_t VecHalf __attribute__((vector_size(VEC * 2)));
typedef int16_t VecShort __attribute__((vector_size(VEC * 4)));
typedef int8_t VecByte __attribute__((vector_size(VEC)));

struct BFloat16 {
    uint16_t bits;
};

struct Float16 {
    uint16_t bits;
};

// Calls body with a value of the element type that library.py's DTYPES gives this code.
template <typename Body>
void with_dtype(int32_t dtype, Body body) {
    if (dtype == 0) {
        body(float{});
    } else {
        body(BFloat16{});
    }
}

template <typename To, typename From>
inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// Subtracting a zero, unlike adding one, changes no number: compilers leave it out.
inline Vec splat(float x) { return x - Vec{}; }

// True lanes of a comparison are all ones.
inline Vec select(VecI mask, Vec yes, Vec no) { return mask ? yes : no; }

// 0, 1, 2, ...
template <int... LANE>
inline VecI lane_numbers(std::integer_sequence<int, LANE...>) {
    return VecI{LANE...};
}
inline VecI lane_numbers() { return lane_numbers(std::make_integer_sequence<int, VEC>()); }

// a * b + c, rounded once where the machine can. The compiler is told to fuse nothing by itself (see
// build.py): it would do so here and not there, and a result would depend on the code path it took.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__) && defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

// b where one of them is NaN.
inline Vec max(Vec a, Vec b) {
#ifdef __AVX512F__
    return (Vec)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#else
    return select(a > b, a, b);
#endif
}
inline VecI max(VecI a, VecI b) { return a > b ? a : b; }

// Lanes of two vectors by number: from 0 those of a, from VEC those of b.
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, VecI{__VA_ARGS__})
#endif

// -- Loads and stores: always float32 in registers, one rounding on the way out. ------------------

template <typename V, typename T>
inline V load_bits(const T* p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}

inline Vec load(const float* p) { return load_bits<Vec>(p); }
inline VecI load(const int32_t* p) { return load_bits<VecI>(p); }

inline VecU widen(VecHalf half) {
#ifdef __AVX512F__
    return (VecU)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)half);
#else
    return __builtin_convertvector(half, VecU);
#endif
}

inline Vec load(const BFloat16* p) {
    return bit_cast<Vec>(widen(load_bits<VecHalf>(p)) << 16);
}

// Of finite numbers.
inline Vec load(const Float16* p) {
    const VecHalf half = load_bits<VecHalf>(p);
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_cvtph_ps(0xffff, (__m256i)half);
#elif defined(__AVX2__) && defined(__F16C__)
    return (Vec)_mm256_cvtph_ps((__m128i)half);
#else
    // The exponents' zeros are 112 apart.
    const VecU bits = widen(half);
    const Vec magnitude = bit_cast<Vec>((bits & 0x7fff) << 13) * 0x1p112f;
    return bit_cast<Vec>(bit_cast<VecU>(magnitude) | (bits & 0x8000) << 16);
#endif
}

inline void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }
inline void store(int32_t* p, VecI v) { memcpy(p, &v, sizeof v); }

// The last byte of each lane.
inline void store(int8_t* p, VecU v) {
#if defined(__AVX512F__)
    const auto bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v);
#elif defined(__AVX2__)
    const auto halves = _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi32(0x0c080400));
    const int32_t bytes[] = {_mm256_extract_epi32(halves, 0), _mm256_extract_epi32(halves, 4)};
#else
    const auto bytes = __builtin_convertvector(v, VecByte);
#endif
    memcpy(p, &bytes, sizeof bytes);
}

inline void store(BFloat16* p, Vec v) {
#ifdef __AVX512BF16__
    const auto half = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &half, sizeof half);
#else
    const VecU bits = bit_cast<VecU>(v);
    const VecU nearest_even = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    // Rounding could carry a NaN's mantissa over into infinity.
    const VecU rounded = v != v ? (VecU{} + 0x7fc0) : nearest_even;
    const VecHalf half = __builtin_convertvector(rounded, VecHalf);
    memcpy(p, &half, sizeof half);
#endif
}

// The first `count` < VEC elements; the other lanes are zero, their memory is not touched.
template <typename T>
inline Vec load_first(const T* p, int64_t count) {
    T buffer[VEC] = {};
    memcpy(buffer, p, count * sizeof(T));
    return load(buffer);
}

template <typename T>
inline void store_first(T* p, Vec v, int64_t count) {
    T buffer[VEC];
    store(buffer, v);
    memcpy(p, buffer, count * sizeof(T));
}

// Runs body(offset, load, store) over [0, size) in steps of one vector, the last one partial.
template <typename Body>
inline void for_each_vec(int64_t size, Body body) {
    int64_t i = 0;
    for (; i + VEC <= size; i += VEC) {
        body(
            i, [](const auto* p) { return load(p); }, [](auto* p, Vec v) { store(p, v); });
    }
    if (i < size) {
        const int64_t count = size - i;
        body(
            i, [count](const auto* p) { return load_first(p, count); },
            [count](auto* p, Vec v) { store_first(p, v, count); });
    }
}

// -- Reductions: neighbours half a vector apart, then a quarter, and so on. ------------------------

template <int HALF = VEC / 2, typename V, typename Combine, int... LANE>
inline auto reduce(V v, Combine combine, std::integer_sequence<int, LANE...> lanes) {
    v = combine(v, SHUFFLE(v, v, (LANE ^ HALF)...));
    if constexpr (HALF > 1) {
        return reduce<HALF / 2>(v, combine, lanes);
    } else {
        return v[0];
    }
}

template <typename V>
inline auto sum(V v) {
    return reduce(v, [](V a, V b) { return a + b; }, std::make_integer_sequence<int, VEC>());
}

template <typename V>
inline auto max(V v) {
    return reduce(v, [](V a, V b) { return max(a, b); }, std::make_integer_sequence<int, VEC>());
}

// -- Transposition of a VEC x VEC square, by swapping its off-diagonal quarters, and theirs. --------

template <int HALF, int... LANE>
inline void swap_quarters(Vec& upper, Vec& lower, std::integer_sequence<int, LANE...>) {
    const Vec a = upper, b = lower;
    upper = SHUFFLE(a, b, (LANE & HALF ? VEC + LANE - HALF : LANE)...);
    lower = SHUFFLE(a, b, (LANE & HALF ? VEC + LANE : LANE + HALF)...);
}

template <int HALF = VEC / 2>
inline void transpose(Vec (&rows)[VEC]) {
#pragma GCC unroll 16
    for (int i = 0; i < VEC; ++i) {
        if (i & HALF) continue;
        swap_quarters<HALF>(rows[i], rows[i + HALF], std::make_integer_sequence<int, VEC>());
    }
    if constexpr (HALF > 1) transpose<HALF / 2>(rows);
}

// -- Elementary functions, after Cephes (Moshier): errors of about one unit in the last place. ----

// exp(x); 0 where the result would be denormal, infinity where it would overflow; exp(0) is 1.
inline Vec exp(Vec x) {
    const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number.
    const Vec n = fma(x, splat(1.44269504088896341f), magic) - magic;
    const Vec r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), x));
    Vec p = splat(1.9875691500e-4f);
    p = fma(p, r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    const Vec mantissa = fma(p, r * r, r) + 1.0f;
    // Out of range n may be anything here; the selects below replace those lanes.
    const VecU scaled = bit_cast<VecU>(mantissa) + (bit_cast<VecU>(n + magic) << 23);
    Vec result = bit_cast<Vec>(scaled);
    result = select(x < -87.3365447504f, splat(0.0f), result);
    result = select(x > 88.3762626647f, splat(__builtin_inff()), result);
    return select(x != x, x, result);
}

// 2^x for x < 127 within 2^-13, closer than a bfloat16 can tell; 0 far below 2^-126. exp2_coarse(0) is
// 1. Polynomial fitted for the smallest relative error.
inline Vec exp2_coarse(Vec x) {
    auto polynomial = [](Vec r) {
        Vec p = splat(5.50087654e-2f);
        p = fma(p, r, splat(2.42210798e-1f));
        p = fma(p, r, splat(6.93282927e-1f));
        return fma(p, r, splat(1.0f));
    };
#ifdef __AVX512DQ__
    // What is left of x after rounding to a whole number, and the scaling by 2 to the power of that.
    const Vec r = (Vec)_mm512_maskz_reduce_ps(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT);
    return (Vec)_mm512_maskz_scalef_ps(0xffff, (__m512)polynomial(r), (__m512)(x - r));
#else
    const Vec magic = splat(12582912.0f);
    const Vec n = (x + magic) - magic;
    const Vec p = polynomial(x - n);
    const Vec scaled = bit_cast<Vec>(bit_cast<VecU>(p) + (bit_cast<VecU>(n + magic) << 23));
    const Vec result = select(x < -126.0f, splat(0.0f), scaled);
    return select(x != x, x, result);
#endif
}

// The natural logarithm of positive, finite, normal numbers.
inline Vec log(Vec x) {
    const VecI bits = bit_cast<VecI>(x);
    VecI exponent = (bits >> 23) - 126;
    Vec m = bit_cast<Vec>((bits & 0x7fffff) | 0x3f000000);  // in [1/2, 1)
    const VecI is_small = m < 0.707106781186547524f;
    exponent += is_small;  // A true lane is -1.
    m = select(is_small, m + m, m) - 1.0f;
    const Vec z = m * m;
    Vec p = splat(7.0376836292e-2f);
    p = fma(p, m, splat(-1.1514610310e-1f));
    p = fma(p, m, splat(1.1676998740e-1f));
    p = fma(p, m, splat(-1.2420140846e-1f));
    p = fma(p, m, splat(1.4249322787e-1f));
    p = fma(p, m, splat(-1.6668057665e-1f));
    p = fma(p, m, splat(2.0000714765e-1f));
    p = fma(p, m, splat(-2.4999993993e-1f));
    p = fma(p, m, splat(3.3333331174e-1f));
    const Vec e = __builtin_convertvector(exponent, Vec);
    const Vec low = fma(splat(-0.5f), z, fma(p * m, z, e * -2.12194440e-4f));
    return fma(e, splat(0.693359375f), m + low);
}

// log(1 + x) for -1 < x <= 0, exact to rounding for the smallest x too (after Kahan).
inline Vec log1p(Vec x) {
    const Vec y = 1.0f + x;
    const Vec rounded_part = x - (y - 1.0f);
    return log(y) + rounded_part / y;
}
