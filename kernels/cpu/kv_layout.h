// Where a token's keys and values lie in a layer's cache, see kernels/kv_pages.py.
//
// A unit is what one multiply-add takes (see tile.h). Keys are transposed, so that a vector holds one
// unit of many tokens; values are not, and their units join neighbouring tokens. Attention then
// multiplies by both as they lie. A page of bytes ends with a scale for each of its lanes.
#pragma once

#include "tile.h"

// The same on every machine, as wide as the widest vector.
constexpr int64_t PAGE_LANES = 16;

inline int64_t round_up(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

// Keys and values as bytes, of a model whose activations are of type X. A token has two scales for each
// head, of its key and its value. Keys are stored 128 higher, without signs: sums begin with what takes
// that out again. Values have signs, for the weights that they meet have none.
template <typename X>
struct Int8Unit {
    using Element = X;
    using Unit = uint32_t;
    static constexpr int PER_UNIT = 4;
};

// What keys and values are multiplied as.
template <typename U>
struct KvUnits {
    using Keys = U;
    using Values = U;
    static constexpr bool HAS_SCALES = false;
};
template <typename X>
struct KvUnits<Int8Unit<X>> {
    using Keys = ByteUnit<false>;
    using Values = ByteUnit<true>;
    static constexpr bool HAS_SCALES = true;
};
template <typename U>
using KeyUnit = typename KvUnits<U>::Keys;
template <typename U>
using ValueUnit = typename KvUnits<U>::Values;
template <typename U>
constexpr bool HAS_SCALES = KvUnits<U>::HAS_SCALES;

// Calls body with the unit of a cache, by the codes that library.py's DTYPES and CACHE_DTYPES give the
// types of activations and cache.
template <typename Body>
void with_kv_unit(int32_t dtype, int32_t cache_dtype, Body body) {
    if (cache_dtype == dtype) {
        with_unit(dtype, body);
    } else {
        with_dtype(dtype, [&](auto element) { body(Int8Unit<decltype(element)>{}); });
    }
}

template <typename U>
struct KvLayout {
    using Unit = typename U::Unit;

    int64_t num_kv_heads, head_dim, block_size;

    int64_t padded_dim() const { return round_up(head_dim, PAGE_LANES); }
    // Lanes of a block: tokens, and what fills up the last vector.
    int64_t lanes() const { return round_up(block_size, PAGE_LANES); }
    // Units of dimensions; the last one may be filled up.
    int64_t dim_units() const { return (head_dim + U::PER_UNIT - 1) / U::PER_UNIT; }
    // Where the scales of a page lie in it, lane by lane.
    int64_t scales() const { return padded_dim() * lanes() / U::PER_UNIT; }
    // Units of a page: the keys, or the values, of one head in one block.
    int64_t page_units() const { return scales() + (HAS_SCALES<U> ? lanes() : 0); }

    // A head in a block: a page of keys, and one of values.
    int64_t head_units() const { return 2 * page_units(); }

    // The keys of a head in a block; its values follow them.
    int64_t keys(int64_t block, int64_t kv_head) const {
        return (block * num_kv_heads + kv_head) * head_units();
    }
    // Units of neighbouring dimensions are this far apart in keys, units of tokens in values.
    int64_t key_stride() const { return lanes(); }
    int64_t value_stride() const { return padded_dim(); }
};
