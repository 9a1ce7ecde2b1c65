// Where a token's keys and values lie in a layer's cache, see kernels/kv_pages.py.
//
// A unit is what one multiply-add takes (see tile.h). Keys are transposed, so that a vector holds one
// unit of many tokens; values are not, and their units pair up neighbouring tokens. Attention then
// multiplies by both as they lie.
#pragma once

#include "tile.h"

// The same on every machine, as wide as the widest vector.
constexpr int64_t PAGE_LANES = 16;

inline int64_t round_up(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

template <typename U>
struct KvLayout {
    using Unit = typename U::Unit;

    int64_t num_kv_heads, head_dim, block_size;

    int64_t padded_dim() const { return round_up(head_dim, PAGE_LANES); }
    // Lanes of a block: tokens, and what fills up the last vector.
    int64_t lanes() const { return round_up(block_size, PAGE_LANES); }
    // Units of a page: the keys, or the values, of one head in one block.
    int64_t page_units() const { return padded_dim() * lanes() / U::PER_UNIT; }

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
