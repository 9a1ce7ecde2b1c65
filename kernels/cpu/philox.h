// Random numbers that are a function of what they are for: Philox4x32-10 and Gumbel noise from it.
//
// Source: Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al., 2011).
#pragma once

#include "vec.h"

// One Philox call gives the words of four tokens; VEC calls are made side by side.
constexpr int GROUP = 4 * VEC;

// No noise is larger: that of the smallest word is 33 ln 2.
constexpr float LARGEST_NOISE = 22.9f;

struct PhiloxLanes {
    uint32_t words[4][VEC];
};

inline void philox4x32(PhiloxLanes& lanes, uint64_t key) {
    uint32_t key0 = key, key1 = key >> 32;
    auto& [c0, c1, c2, c3] = lanes.words;
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

// The noise of GROUP tokens from `first_token` on, a multiple of GROUP; see ../sampling.py.
inline void gumbel_noise(uint64_t seed, uint64_t position, int64_t first_token, float* noise) {
    PhiloxLanes lanes;
    for (int i = 0; i < VEC; ++i) {
        lanes.words[0][i] = first_token / 4 + i;
        lanes.words[1][i] = position;
        lanes.words[2][i] = position >> 32;
        lanes.words[3][i] = 0;
    }
    philox4x32(lanes, seed);
    for (int word = 0; word < 4; ++word) {
        const VecU bits = load_bits<VecU>(lanes.words[word]);
        const Vec v = (__builtin_convertvector(bits, Vec) + 0.5f) * 0x1p-32f;
        const Vec below_one = select(v < 1 - 0x1p-24f, v, splat(1 - 0x1p-24f));
        float column[VEC];
        store(column, -log(-log1p(-below_one)));
        for (int i = 0; i < VEC; ++i) noise[4 * i + word] = column[i];
    }
}
