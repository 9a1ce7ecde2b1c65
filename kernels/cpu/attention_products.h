// The two matrix products of attention, over one tile of keys and values as they lie in the cache.
//
// S is the slab (see tile.h) that they are made of: one that fetches what is read next, or a plain one.
#pragma once

#include "attention_tiles.h"
#include "online_softmax.h"

// What a row's scores begin with, and what they are multiplied by to be exponents.
template <typename U>
struct RowFactors {
    typename KeyUnit<U>::Number first_score;
    float factor;
};

// Rows of a task that share a KV head, few enough to be worked on at once.
template <typename U>
struct Rows {
    const typename U::Unit* queries;
    const RowFactors<U>* factors;
    const int64_t* visible;
    int64_t count, first;  // Of all rows of the task.
};

template <typename U, int VECS>
void aim(Slab<U, VECS>&, Ahead&) {}

template <typename U, int VECS>
void aim(StreamedSlab<U, VECS>& slab, Ahead& ahead) {
    slab.ahead = ahead.take(slab.depth * slab.STEP_BYTES);
}

// The scores of as many lanes as VECS vectors hold.
template <typename U, template <typename, int> class S, int VECS>
void score_lanes(const Attention<U>& a, const Tile<U>& tile, int64_t lane, const Rows<U>& rows,
                 Ahead& ahead, typename KeyUnit<U>::Number* scores) {
    // In two parts, so that each fetches from one stretch of memory.
    const int64_t depth = a.dim_units(), half = depth / 2, stride = a.layout.key_stride();
    S<KeyUnit<U>, VECS> slabs[2] = {};
    for (int part = 0; part < 2; ++part) {
        auto& slab = slabs[part];
        slab.stride = stride;
        slab.first = part * half;
        slab.depth = part == 0 ? half : depth - half;
        for (int v = 0; v < VECS; ++v) {
            const int64_t here = lane + v * VEC;
            slab.columns[v] =
                tile.keys[here / PAGE_LANES] + here % PAGE_LANES + slab.first * stride;
        }
        aim(slab, ahead);
    }
    multiply_rows<KeyUnit<U>, VECS>(rows.count, {rows.queries, depth}, slabs, 2,
                                    {scores + lane, KEY_TILE});
}

// scores[row][lane] = query[row] * key[lane], up to `width`
template <typename U, template <typename, int> class S>
void score(const Attention<U>& a, const Tile<U>& tile, int64_t width, const Rows<U>& rows,
           Ahead& ahead, typename KeyUnit<U>::Number* scores) {
    for (int64_t row = 0; row < rows.count; ++row) {
        std::fill_n(scores + row * KEY_TILE, KEY_TILE, rows.factors[row].first_score);
    }
    int64_t lane = 0;
    for (; lane + TILE_VECS * VEC <= width; lane += TILE_VECS * VEC) {
        score_lanes<U, S, TILE_VECS>(a, tile, lane, rows, ahead, scores);
    }
    for (; lane < width; lane += VEC) score_lanes<U, S, 1>(a, tile, lane, rows, ahead, scores);
}

// Lanes that fill up a block hold no token.
template <typename U>
void mask_fillers(const KvLayout<U>& layout, const Tile<U>& tile, int64_t rows, float* scores) {
    if (layout.lanes() == layout.block_size) return;
    for (int64_t lane = 0; lane < tile.count; ++lane) {
        if ((tile.start + lane) % layout.lanes() < layout.block_size) continue;
        for (int64_t row = 0; row < rows; ++row) scores[row * KEY_TILE + lane] = LOWEST;
    }
}

// Values of neighbouring lanes, and the unit of a row's weights that meets the first of them.
template <typename U>
struct Values {
    const typename U::Unit* data;
    int64_t first, depth;
};
// Each group of lanes, and what is left of one of which the last unit is seen by half.
constexpr int64_t MAX_PARTS = 2 * TILE_GROUPS;

// The values of a tile that are visible, without lanes that nobody has written; `halves` is for units
// of which one lane is. Returns the number of parts.
template <typename U>
int64_t find_values(const Attention<U>& a, const Tile<U>& tile, int64_t visible,
                    typename U::Unit (*halves)[MAX_HEAD_DIM], Values<U>* parts) {
    const int64_t dim = a.layout.padded_dim();
    int64_t num_parts = 0;
    for (int64_t group = 0; group * PAGE_LANES < visible; ++group) {
        const int64_t offset = (tile.start + group * PAGE_LANES) % a.layout.lanes();
        const int64_t written = std::min({PAGE_LANES, visible - group * PAGE_LANES,
                                          a.layout.block_size - offset});
        const int64_t first = group * PAGE_LANES / U::PER_UNIT;
        // Whatever a byte is that nobody has written, times zero it is zero.
        constexpr int64_t FILLED_UP = HAS_SCALES<U> ? U::PER_UNIT - 1 : 0;
        const int64_t depth = (written + FILLED_UP) / U::PER_UNIT;
        parts[num_parts++] = {tile.values[group], first, depth};
        if constexpr (!HAS_SCALES<U>) {
            if (written % U::PER_UNIT == 0) continue;
            const auto* half = tile.values[group] + depth * dim;
            auto* last = halves[group];
            for (int64_t i = 0; i < dim; ++i) last[i] = U::first_of(half[i]);
            parts[num_parts++] = {last, first + depth, 1};
        }
    }
    return num_parts;
}

template <typename U, template <typename, int> class S, int VECS>
void add_columns(const Values<U>* parts, int64_t num_parts, int64_t rows, int64_t dim,
                 int64_t column, const typename U::Unit* weights, Ahead& ahead,
                 typename ValueUnit<U>::Number* sums) {
    S<ValueUnit<U>, VECS> slabs[MAX_PARTS];
    for (int64_t p = 0; p < num_parts; ++p) {
        auto& slab = slabs[p];
        slab.stride = dim;
        slab.first = parts[p].first;
        slab.depth = parts[p].depth;
        for (int v = 0; v < VECS; ++v) slab.columns[v] = parts[p].data + column + v * VEC;
        aim(slab, ahead);
    }
    multiply_rows<ValueUnit<U>, VECS>(rows, {weights, KEY_TILE / U::PER_UNIT}, slabs, num_parts,
                                      {sums + column, dim});
}

// sums[row] += weight[row][lane] * value[lane]
template <typename U, template <typename, int> class S>
void add_values(const Values<U>* parts, int64_t num_parts, int64_t rows, int64_t dim,
                const typename U::Unit* weights, Ahead& ahead,
                typename ValueUnit<U>::Number* sums) {
    int64_t column = 0;
    for (; column + TILE_VECS * VEC <= dim; column += TILE_VECS * VEC) {
        add_columns<U, S, TILE_VECS>(parts, num_parts, rows, dim, column, weights, ahead, sums);
    }
    for (; column < dim; column += VEC) {
        add_columns<U, S, 1>(parts, num_parts, rows, dim, column, weights, ahead, sums);
    }
}
