// Random numbers that are a function of what they are for: Philox4x32-10 and Gumbel noise from it.
//
// Source: Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al., 2011).
#pragma once

#include "vec.h"

// One Philox call gives a word for each of four tokens; VEC calls are made side by side.
constexpr int GROUP = 4 * VEC;

// Replaces the counters, word by word, by the random words that belong to them.
inline void philox4x32(uint32_t (&words)[4][VEC], uint64_t key) {
    uint32_t key0 = key, key1 = key >> 32;
    auto& [c0, c1, c2, c3] = words;
    for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < VEC; ++i) {
            const uint64_t product0 = uint64_t{0xD2511F53} * c0[i];
            const uint64_t product1 = uint64_t{0xCD9E8D57} * c2[i];
            c0[i] = static_cast<uint32_t>(product1 >> 32) ^ c1[i] ^ key0;
            c1[i] = product1;
            c2[i] = static_cast<uint32_t>(product0 >> 32) ^ c3[i] ^ key1;
            c3[i] = product0;
        }
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
}

// first = a0 b0 a1 b1 ..., second = the rest.
template <int... LANE>
inline void zip(VecU a, VecU b, VecU& first, VecU& second, std::integer_sequence<int, LANE...>) {
    first = SHUFFLE(a, b, (LANE / 2 + LANE % 2 * VEC)...);
    second = SHUFFLE(a, b, (VEC / 2 + LANE / 2 + LANE % 2 * VEC)...);
}

// The noise of GROUP tokens from `first_token` on, a multiple of GROUP; see ../sampling.py.
inline void gumbel_noise(uint64_t seed, uint64_t position, int64_t first_token,
                         Vec (&noise)[4]) {
    uint32_t words[4][VEC];
    for (int i = 0; i < VEC; ++i) {
        words[0][i] = first_token / 4 + i;
        words[1][i] = position;
        words[2][i] = position >> 32;
        words[3][i] = 0;
    }
    philox4x32(words, seed);
    VecU w[4], half[4];
    for (int i = 0; i < 4; ++i) w[i] = load_bits<VecU>(words[i]);
    constexpr auto lanes = std::make_integer_sequence<int, VEC>();
    zip(w[0], w[2], half[0], half[2], lanes);
    zip(w[1], w[3], half[1], half[3], lanes);
    zip(half[0], half[1], w[0], w[1], lanes);
    zip(half[2], half[3], w[2], w[3], lanes);
    for (int i = 0; i < 4; ++i) {
        const Vec v = (__builtin_convertvector(w[i], Vec) + 0.5f) * 0x1p-32f;
        const Vec below_one = select(v < 1 - 0x1p-24f, v, splat(1 - 0x1p-24f));
        noise[i] = -log(-log1p(-below_one));
    }
}
