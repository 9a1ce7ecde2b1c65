// What attention reads of the cache: tiles of KEY_TILE lanes, wherever their blocks lie.
#pragma once

#include <algorithm>

#include "kv_layout.h"

constexpr int64_t KEY_TILE = 64;

template <typename U>
struct Attention {
    using Element = typename U::Element;
    using Unit = typename U::Unit;

    const Element* q;
    const Unit *k_cache, *v_cache;
    const int32_t* block_tables;
    Element* out;
    KvLayout<U> layout;
    int64_t num_heads, q_stride, table_stride;
    float scale;

    int64_t heads_per_kv_head() const { return num_heads / layout.num_kv_heads; }
    int64_t dim_units() const { return layout.head_dim / U::PER_UNIT; }
    // Lanes of a request up to and with a position.
    int64_t lanes_to(int64_t position) const {
        return position / layout.block_size * layout.lanes() + position % layout.block_size + 1;
    }
};

// Neighbouring queries of one request, and all heads that share a KV head. They are worked on
// together, as rows: row = query * heads_per_kv_head + head.
struct Task {
    int64_t request, kv_head, first_token, num_queries, first_position;
    // Of the request's lanes; all of them, unless threads share the request.
    int64_t first_segment, last_segment;

    int64_t last_position() const { return first_position + num_queries - 1; }
};

// The blocks of KEY_TILE lanes from `start` on, of which `count` have been written.
template <typename U>
struct Tile {
    int64_t start, count;
    const typename U::Unit *keys[KEY_TILE / PAGE_LANES], *values[KEY_TILE / PAGE_LANES];

    // Lanes in whole vectors.
    int64_t width() const { return round_up(count, VEC); }
};

// Finds a tile, as groups of PAGE_LANES lanes.
template <typename U>
Tile<U> find_tile(const Attention<U>& a, const Task& task, int64_t start, int64_t end) {
    Tile<U> tile = {start, std::clamp<int64_t>(end - start, 0, KEY_TILE), {}, {}};
    const int32_t* table = a.block_tables + task.request * a.table_stride;
    const int64_t lanes = a.layout.lanes();
    for (int64_t group = 0; group * PAGE_LANES < KEY_TILE; ++group) {
        // What lies past the end repeats the last group, and is masked.
        const int64_t lane = start + std::min(group * PAGE_LANES, (tile.count - 1) & -PAGE_LANES);
        const int64_t page = a.layout.page(table[std::max<int64_t>(lane, 0) / lanes], task.kv_head);
        const int64_t offset = lane % lanes;
        tile.keys[group] = a.k_cache + page + offset;
        tile.values[group] =
            a.v_cache + page + offset / U::PER_UNIT * a.layout.value_stride();
    }
    return tile;
}

template <typename U>
void prefetch(const Attention<U>& a, const Tile<U>& tile) {
    constexpr int64_t LINE_UNITS = 64 / sizeof(typename U::Unit);
    for (int64_t group = 0; group * PAGE_LANES < tile.count; ++group) {
        for (int64_t unit = 0; unit < a.dim_units(); ++unit) {
            __builtin_prefetch(tile.keys[group] + unit * a.layout.key_stride());
        }
        const int64_t num_units = PAGE_LANES / U::PER_UNIT * a.layout.value_stride();
        for (int64_t unit = 0; unit < num_units; unit += LINE_UNITS) {
            __builtin_prefetch(tile.values[group] + unit);
        }
    }
}
