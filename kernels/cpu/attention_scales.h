// What the scales of a cache in bytes do to attention, before and after its products.
//
// The bytes of a query meet those of keys; a score is then multiplied by the scales of both. The scale of
// a value goes into the weight that it meets, and a row's weights of a tile become bytes of one scale.
//
// Source: SageAttention (Zhang et al., 2024), for the products of bytes.
#pragma once

#include <numeric>

#include "attention_products.h"
#include "quantize_head.h"

constexpr float LARGEST_WEIGHT = 255.0f;

// Puts a head of a query into its row, as it is or as bytes. `factor` is that of all scores.
template <typename U>
RowFactors<U> load_query(const typename U::Element* head, int64_t dim, float factor,
                         typename U::Unit* row) {
    if constexpr (HAS_SCALES<U>) {
        auto* bytes = reinterpret_cast<int8_t*>(row);
        const float scale = quantize_head(head, dim, bytes);
        // Zeros have any scale.
        return {-128 * std::accumulate(bytes, bytes + dim, 0), factor * (scale == 0 ? 1 : scale)};
    } else {
        memcpy(row, head, dim * sizeof *head);
        return {0, factor};
    }
}

// scores[row][lane] = products[row][lane] * the key's scale
template <typename U>
void scale_scores(const KvLayout<U>& layout, const Tile<U>& tile, int64_t width, int64_t num_rows,
                  const int32_t* products, float* scores) {
    for (int64_t lane = 0; lane < width; lane += VEC) {
        const auto* keys = tile.keys[lane / PAGE_LANES] + lane % PAGE_LANES;
        const Vec scale = load_bits<Vec>(keys + layout.scales());
        for (int64_t i = lane; i < num_rows * KEY_TILE; i += KEY_TILE) {
            store(scores + i, __builtin_convertvector(load(products + i), Vec) * scale);
        }
    }
}

// Turns a row's weights into bytes that meet those of values; returns the scale of their products.
template <typename U>
float quantize_weights(const KvLayout<U>& layout, const Tile<U>& tile, int64_t width, float* weights,
                       typename U::Unit* units) {
    const Vec zero = splat(0.0f);
    VecI magnitudes = {};
    for (int64_t lane = 0; lane < width; lane += VEC) {
        const auto* keys = tile.keys[lane / PAGE_LANES] + lane % PAGE_LANES;
        const Vec scale = load_bits<Vec>(keys + layout.page_units() + layout.scales());
        const Vec weight = load(weights + lane);
        // A lane that nobody has written may hold any scale.
        const Vec scaled = select(weight > zero, weight * scale, zero);
        magnitudes = max(magnitudes, magnitude(scaled));
        store(weights + lane, scaled);
    }
    const ByteScale of_row(bit_cast<float>(max(magnitudes)), LARGEST_WEIGHT);
    auto* bytes = reinterpret_cast<int8_t*>(units);
    for (int64_t lane = 0; lane < width; lane += VEC) {
        store(bytes + lane, rounded(load(weights + lane) * of_row.inverse));
    }
    return of_row.scale;
}

// sums[i] += products[i] * scale
inline void add_scaled(const int32_t* products, int64_t count, float scale, float* sums) {
    for (int64_t i = 0; i < count; i += VEC) {
        const Vec product = __builtin_convertvector(load(products + i), Vec);
        store(sums + i, fma(product, splat(scale), load(sums + i)));
    }
}
