// The inner loop of every matrix product here: a tile of sums held in registers.
//
// Each sum is one chain of multiply-adds over k, in order. Tile sizes decide which sums are worked on
// together; they change speed and never a bit of the result.
//
// Source: the loop structure is that of BLIS (Van Zee and van de Geijn, 2015).
#pragma once

#include "vec.h"

// The sums fill the registers: 6 x 4 of the 32 that AVX-512 and NEON have, 6 x 2 of 16 elsewhere.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_VECS = 4;
#else
constexpr int TILE_VECS = 2;
#endif
constexpr int TILE_ROWS = 6;

// A unit is what one step along k multiplies: one float32, or two neighbours in bfloat16.
struct Float32Unit {
    using Unit = float;

    static Vec multiply_add(Vec sum, const float* b, float a) {
        return fma(load(b), splat(a), sum);
    }
};

struct BFloat16Unit {
    using Unit = uint32_t;

    static Vec multiply_add(Vec sum, const uint32_t* b, uint32_t a) {
        const VecU pairs = load_bits<VecU>(b);
#ifdef __AVX512BF16__
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(VecU{} + a), (__m512bh)pairs);
#else
        const VecU both = VecU{} + a;
        sum = fma(bit_cast<Vec>(pairs << 16), bit_cast<Vec>(both << 16), sum);
        return fma(bit_cast<Vec>(pairs & 0xffff0000), bit_cast<Vec>(both & 0xffff0000), sum);
#endif
    }
};

// A matrix in memory: its first element and the distance between rows.
template <typename T>
struct Matrix {
    T* data;
    int64_t stride;

    T* row(int64_t i) const { return data + i * stride; }
};

// c[ROWS][VECS * VEC] += a[ROWS][depth] * b[depth][VECS * VEC]
template <typename U, int ROWS, int VECS>
void multiply_tile(Matrix<const typename U::Unit> a, Matrix<const typename U::Unit> b,
                   int64_t depth, Matrix<float> c) {
    Vec sums[ROWS][VECS];
    for (int r = 0; r < ROWS; ++r) {
        for (int v = 0; v < VECS; ++v) sums[r][v] = load(c.row(r) + v * VEC);
    }
    for (int64_t k = 0; k < depth; ++k) {
        for (int r = 0; r < ROWS; ++r) {
            for (int v = 0; v < VECS; ++v) {
                sums[r][v] = U::multiply_add(sums[r][v], b.row(k) + v * VEC, a.row(r)[k]);
            }
        }
    }
    for (int r = 0; r < ROWS; ++r) {
        for (int v = 0; v < VECS; ++v) store(c.row(r) + v * VEC, sums[r][v]);
    }
}

// c[num_rows][VECS * VEC] += a[num_rows][depth] * b[depth][VECS * VEC]
template <typename U, int VECS>
void multiply_rows(int64_t num_rows, Matrix<const typename U::Unit> a,
                   Matrix<const typename U::Unit> b, int64_t depth, Matrix<float> c) {
    constexpr decltype(&multiply_tile<U, 1, VECS>) TILE[TILE_ROWS + 1] = {
        nullptr,
        multiply_tile<U, 1, VECS>,
        multiply_tile<U, 2, VECS>,
        multiply_tile<U, 3, VECS>,
        multiply_tile<U, 4, VECS>,
        multiply_tile<U, 5, VECS>,
        multiply_tile<U, 6, VECS>,
    };
    // Rows are shared out evenly, so that no tile is left with a single one.
    const int64_t num_tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t tile = 0; tile < num_tiles; ++tile) {
        const int64_t first = num_rows * tile / num_tiles;
        const int64_t last = num_rows * (tile + 1) / num_tiles;
        TILE[last - first]({a.row(first), a.stride}, b, depth, {c.row(first), c.stride});
    }
}
