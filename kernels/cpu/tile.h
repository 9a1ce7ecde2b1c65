// The inner loop of every matrix product here: a tile of sums held in registers.
//
// Each sum is one chain of multiply-adds over k, in order. Tile sizes decide which sums are worked on
// together; they change speed and never a bit of the result.
//
// Source: the loop structure is that of BLIS (Van Zee and van de Geijn, 2015).
#pragma once

#include "bytes.h"
#include "vec.h"

// The sums fill the registers: 6 x 4 of the 32 that AVX-512 and NEON have, 6 x 2 of 16 elsewhere.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_VECS = 4;
#else
constexpr int TILE_VECS = 2;
#endif
constexpr int TILE_ROWS = 6;

constexpr int64_t CACHE_LINE = 64;

// A unit is what one step along k multiplies: one float32, two neighbours in bfloat16, four in bytes.
// Sums are vectors of numbers.
struct Float32Unit {
    using Element = float;
    using Unit = float;
    using Number = float;
    using Sum = Vec;
    static constexpr int PER_UNIT = 1;
    // The unit with only its first element, the other one zero.
    static float first_of(float unit) { return unit; }

    static Vec multiply_add(Vec sum, VecU b, float a) {
        return fma(bit_cast<Vec>(b), splat(a), sum);
    }
};

struct BFloat16Unit {
    using Element = BFloat16;
    using Unit = uint32_t;
    using Number = float;
    using Sum = Vec;
    static constexpr int PER_UNIT = 2;
    static uint32_t first_of(uint32_t unit) { return unit & 0xffff; }

    static Vec multiply_add(Vec sum, VecU pairs, uint32_t a) {
#ifdef __AVX512BF16__
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(VecU{} + a), (__m512bh)pairs);
#else
        const VecU both = VecU{} + a;
        sum = fma(bit_cast<Vec>(pairs << 16), bit_cast<Vec>(both << 16), sum);
        return fma(bit_cast<Vec>(pairs & 0xffff0000), bit_cast<Vec>(both & 0xffff0000), sum);
#endif
    }
};

// Of the two factors of a product one has signs, of the right-hand matrix or else of the left-hand one.
template <bool IS_RIGHT_SIGNED>
struct ByteUnit {
    using Unit = uint32_t;
    using Number = int32_t;
    using Sum = VecI;
    static constexpr int PER_UNIT = 4;

    static VecI multiply_add(VecI sum, VecU b, uint32_t a) {
        const VecU both = VecU{} + a;
        return IS_RIGHT_SIGNED ? multiply_add_bytes(sum, both, b) : multiply_add_bytes(sum, b, both);
    }
};

// Calls body with the unit of the element type that library.py's DTYPES gives this code.
template <typename Body>
void with_unit(int32_t dtype, Body body) {
    if (dtype == 0) {
        body(Float32Unit{});
    } else {
        body(BFloat16Unit{});
    }
}

// A matrix in memory: its first element and the distance between rows.
template <typename T>
struct Matrix {
    T* data;
    int64_t stride;

    T* row(int64_t i) const { return data + i * stride; }
};

// A part of the right-hand matrix: `depth` rows of VECS vectors, which may lie apart from each other.
// It meets the units of the left-hand rows from `first` on.
template <typename U, int VECS>
struct Slab {
    using Unit = typename U::Unit;

    const Unit* columns[VECS];
    int64_t stride, first, depth;

    // Vectors side by side.
    static Slab at(const Unit* data, int64_t stride, int64_t first, int64_t depth) {
        Slab slab = {{}, stride, first, depth};
        for (int v = 0; v < VECS; ++v) slab.columns[v] = data + v * VEC;
        return slab;
    }

    void fetch(int64_t) const {}
};

// One whose steps each fetch from memory so many bytes of what comes later. They go to the L2 cache,
// which waits for more lines at a time than the L1 does.
template <typename U, int VECS, int64_t BYTES>
struct FetchingSlab : Slab<U, VECS> {
    static constexpr int64_t STEP_BYTES = BYTES;

    const char* ahead;

    void fetch(int64_t k) const {
        for (int64_t line = 0; line < BYTES; line += CACHE_LINE) {
            __builtin_prefetch(ahead + k * BYTES + line, 0, 2);
        }
    }
};

// As many bytes as they multiply by.
template <typename U, int VECS>
using StreamedSlab = FetchingSlab<U, VECS, VECS * sizeof(Vec)>;

// sums[ROWS][VECS] += a[ROWS][..] * the slab
template <typename U, typename S, int ROWS, int VECS>
inline __attribute__((always_inline)) void add_products(const S slab,
                                                        Matrix<const typename U::Unit> a,
                                                        typename U::Sum (&sums)[ROWS][VECS]) {
    // Rows are addressed in threes, none to two strides from a pointer. One pointer for each row would
    // be more than there are registers, and what is left over goes where vectors are worked on.
    constexpr int GROUP = 3;
    const typename U::Unit* first_rows[(ROWS + GROUP - 1) / GROUP];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r += GROUP) first_rows[r / GROUP] = a.row(r) + slab.first;
    int64_t at = 0;
    for (int64_t k = 0; k < slab.depth; ++k) {
        slab.fetch(k);
        VecU b[VECS];
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) b[v] = load_bits<VecU>(slab.columns[v] + at);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const auto unit = first_rows[r / GROUP][r % GROUP * a.stride];
#pragma GCC unroll 8
            for (int v = 0; v < VECS; ++v) sums[r][v] = U::multiply_add(sums[r][v], b[v], unit);
        }
#pragma GCC unroll 8
        for (auto& row : first_rows) ++row;
        at += slab.stride;
    }
}

// c[ROWS][VECS * VEC] += a[ROWS][..] * the slabs, one below the other: at least one, for where there
// might be none, compilers keep a second copy of the sums in memory
template <typename U, int ROWS, int VECS, typename S>
void multiply_tile(Matrix<const typename U::Unit> a, const S* slabs, int64_t num_slabs,
                   Matrix<typename U::Number> c) {
    typename U::Sum sums[ROWS][VECS];
    // Unrolled by hand, or compilers take the sums through memory.
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) sums[r][v] = load(c.row(r) + v * VEC);
    }
    const S* const end = slabs + num_slabs;
    do {
        add_products<U>(*slabs, a, sums);
    } while (++slabs != end);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) store(c.row(r) + v * VEC, sums[r][v]);
    }
}

// c[num_rows][VECS * VEC] += a[num_rows][..] * the slabs, one below the other
template <typename U, int VECS, typename S = Slab<U, VECS>>
void multiply_rows(int64_t num_rows, Matrix<const typename U::Unit> a, const S* slabs,
                   int64_t num_slabs, Matrix<typename U::Number> c) {
    constexpr decltype(&multiply_tile<U, 1, VECS, S>) TILE[TILE_ROWS + 1] = {
        nullptr,
        multiply_tile<U, 1, VECS, S>,
        multiply_tile<U, 2, VECS, S>,
        multiply_tile<U, 3, VECS, S>,
        multiply_tile<U, 4, VECS, S>,
        multiply_tile<U, 5, VECS, S>,
        multiply_tile<U, 6, VECS, S>,
    };
    // Rows are shared out evenly, so that no tile is left with a single one.
    const int64_t num_tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t tile = 0; tile < num_tiles; ++tile) {
        const int64_t first = num_rows * tile / num_tiles;
        const int64_t last = num_rows * (tile + 1) / num_tiles;
        TILE[last - first]({a.row(first), a.stride}, slabs, num_slabs, {c.row(first), c.stride});
    }
}
