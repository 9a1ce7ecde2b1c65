// Numbers as bytes, and sums of products of bytes: whole numbers, the same on every machine.
#pragma once

#include "vec.h"

constexpr float LARGEST_BYTE = 127.0f;
// Numbers that are all smaller count as zeros: the inverse of their scale might overflow.
constexpr float SMALLEST_RANGE = 1e-30f;

// Without their signs, numbers are in the order of their bits, and what is not finite comes last.
inline VecI magnitude(Vec x) { return bit_cast<VecI>(x) & 0x7fffffff; }

// Adding it rounds to the nearest whole number, which the last bits then are.
constexpr float ROUNDING = 12582912.0f;  // 1.5 * 2^23

// The nearest whole numbers, as integers.
inline VecU rounded(Vec x) {
    return bit_cast<VecU>(x + splat(ROUNDING)) - bit_cast<VecU>(splat(ROUNDING));
}

// Numbers of which the largest is `range`: each is about scale * a byte up to `largest`. The scale of
// numbers that are not all finite is NaN.
struct ByteScale {
    float scale, inverse;

    ByteScale(float range, float largest) {
        const bool is_zero = range < SMALLEST_RANGE;
        inverse = is_zero ? 0.0f : largest / range;
        scale = is_zero ? 0.0f : range * (1 / largest) + (range - range);
    }
};

// Adds to each sum the products of four unsigned bytes and four signed ones.
inline VecI multiply_add_bytes(VecI sum, VecU without_sign, VecU with_sign) {
#if defined(__AVX512VNNI__)
    return (VecI)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)without_sign, (__m512i)with_sign);
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
    return (VecI)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)without_sign, (__m256i)with_sign);
#elif defined(__SSE2__)
    // Sums of two products of bytes would overflow 16 bits, and saturate. So every other byte makes a
    // number of 16 bits, and the products of two of these make one of 32.
    const VecU even = without_sign & 0x00ff00ff, odd = without_sign >> 8 & 0x00ff00ff;
    const auto signed_odd = bit_cast<VecShort>(with_sign) >> 8;
    const auto signed_even = bit_cast<VecShort>(with_sign << 8) >> 8;
#if defined(__AVX512BW__)
    return sum + (VecI)_mm512_madd_epi16((__m512i)even, (__m512i)signed_even) +
           (VecI)_mm512_madd_epi16((__m512i)odd, (__m512i)signed_odd);
#elif defined(__AVX2__)
    return sum + (VecI)_mm256_madd_epi16((__m256i)even, (__m256i)signed_even) +
           (VecI)_mm256_madd_epi16((__m256i)odd, (__m256i)signed_odd);
#else
    return sum + (VecI)_mm_madd_epi16((__m128i)even, (__m128i)signed_even) +
           (VecI)_mm_madd_epi16((__m128i)odd, (__m128i)signed_odd);
#endif
#else
    for (int byte = 0; byte < 4; ++byte) {
        const VecI signed_byte = bit_cast<VecI>(with_sign << (24 - 8 * byte)) >> 24;
        sum += bit_cast<VecI>(without_sign >> 8 * byte & 0xff) * signed_byte;
    }
    return sum;
#endif
}
