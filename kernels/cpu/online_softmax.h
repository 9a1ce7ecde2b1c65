// Softmax over keys that come tile by tile, without knowing the largest score beforehand.
//
// Sources: online softmax (Milakov and Gimelshein, 2018); FlashAttention-4 (Dao et al., 2025) for sums
// that are rescaled only where scores have grown much.
#pragma once

#include <algorithm>
#include <limits>

#include "tile.h"

constexpr int64_t MAX_ROWS = 96;
constexpr int64_t MAX_HEAD_DIM = 256;
constexpr float LOWEST = -std::numeric_limits<float>::infinity();
// Scores may exceed the one that weights relate to by so much, as exponents.
constexpr float HEADROOM = 8;

// What rows have seen: sum of weight * value, sum of weights, and the score that weights relate to.
struct Sums {
    alignas(64) float values[MAX_ROWS * MAX_HEAD_DIM];  // [row][padded_dim]
    Vec weights[MAX_ROWS];  // To be added up lane by lane.
    float base[MAX_ROWS];

    void clear(int64_t rows, int64_t dim) {
        std::fill_n(values, rows * dim, 0.0f);
        std::fill_n(weights, rows, Vec{});
        std::fill_n(base, rows, LOWEST);
    }
};

// Scores are multiplied by this, and their exponential taken to the base that suits the type.
template <typename U>
constexpr float SCORE_UNIT = std::is_same_v<U, Float32Unit> ? 1.0f : 1.44269504088896341f;

template <typename U>
Vec exponential(Vec score) {
    if constexpr (std::is_same_v<U, Float32Unit>) return exp(score);
    return exp2_coarse(score);
}

// Hides the lanes from num_visible on; returns the largest of the others.
inline float mask(float* scores, int64_t width, int64_t num_visible) {
    Vec maxima = splat(LOWEST);
    for (int64_t i = 0; i < width; i += VEC) {
        Vec score = load(scores + i);
        if (i + VEC > num_visible) {
            score = select(lane_numbers() < int32_t(num_visible - i), score, splat(LOWEST));
            store(scores + i, score);
        }
        maxima = max(score, maxima);
    }
    return max(maxima);
}

// Turns a row's scores into weights, and rescales its sums where these would become too large.
// The weights may take the place of the scores.
template <typename U, typename T>
void soften_row(float* scores, int64_t width, int64_t num_visible, float factor, T* weights,
                Sums& sums, int64_t row, int64_t dim) {
    const float largest = mask(scores, width, num_visible) * factor;
    float& base = sums.base[row];
    if (largest > base + HEADROOM) {
        const Vec rescale = exponential<U>(splat(base - largest));
        sums.weights[row] *= rescale;
        float* values = sums.values + row * dim;
        for (int64_t i = 0; i < dim; i += VEC) store(values + i, load(values + i) * rescale);
        base = largest;
    }
    // Where nothing is visible yet, all weights are zero.
    const Vec offset = splat(base == LOWEST ? 0.0f : -base);
    Vec sum = sums.weights[row];
    for (int64_t i = 0; i < width; i += VEC) {
        const Vec weight = exponential<U>(fma(load(scores + i), splat(factor), offset));
        store(weights + i, weight);
        sum += weight;
    }
    sums.weights[row] = sum;
}

// Adds the sums of the lanes that follow.
template <typename U>
void merge(Sums& all, const Sums& next, int64_t rows, int64_t dim) {
    for (int64_t row = 0; row < rows; ++row) {
        // Nothing of them is visible to this row.
        if (sum(next.weights[row]) == 0.0f) continue;
        const float base = std::max(all.base[row], next.base[row]);
        const Vec old_scale = exponential<U>(splat(all.base[row] - base));
        const Vec new_scale = exponential<U>(splat(next.base[row] - base));
        all.base[row] = base;
        all.weights[row] = all.weights[row] * old_scale + next.weights[row] * new_scale;
        for (int64_t i = row * dim; i < (row + 1) * dim; i += VEC) {
            store(all.values + i, fma(load(all.values + i), old_scale,
                                      load(next.values + i) * new_scale));
        }
    }
}
