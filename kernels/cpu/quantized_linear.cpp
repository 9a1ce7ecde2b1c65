// Matrix product of activations and a quantized weight: both as bytes, sums of a group exact.
//
// The sums of one output over the groups of k are added in float32, in order.

#include "quantized_linear.h"

#include "panel_maxima.h"
#include "quantized_weight.h"
#include "scratch.h"

namespace {

// Bytes of a panel taken at a time, so that they stay in the L2 cache.
constexpr int64_t SLAB_BYTES = 256 * 1024;

// How far ahead of the product a panel is fetched that only few rows are multiplied by.
constexpr int64_t AHEAD_BYTES = 4096;

// Lines that each unit of a group fetches, so that all of the group are.
template <typename W>
constexpr int64_t GROUP_LINES = (W::GROUP_BYTES + W::UNITS * CACHE_LINE - 1) /
                                (W::UNITS * CACHE_LINE);

// How often a tile of many rows goes over its panel, a part of it at a time: the sums and the products
// of a group share the registers.
constexpr int PASSES = MULTIPLIES_BYTES ? 2 : 1;

// Fetches what comes later from memory while units are multiplied: so many lines with each of them, in
// every pass, one after the other from `ahead` on.
template <typename W, int64_t LINES>
struct Fetch {
    static constexpr int64_t UNIT_BYTES = LINES * CACHE_LINE;

    const uint8_t* ahead;

    void unit(int64_t group, int unit) const {
        const uint8_t* lines = ahead + (group * W::UNITS + unit) * UNIT_BYTES;
        for (int64_t i = 0; i < LINES; ++i) __builtin_prefetch(lines + i * CACHE_LINE, 0, 2);
    }
    Fetch next_pass(int64_t num_groups) const { return {ahead + num_groups * W::UNITS * UNIT_BYTES}; }
};

// Fetches the panel that is multiplied, some way ahead. All of a group's lines with its units.
template <typename W>
struct StreamFetch {
    const uint8_t* ahead;

    void unit(int64_t group, int unit) const {
        const uint8_t* lines = ahead + group * W::GROUP_BYTES + unit * GROUP_LINES<W> * CACHE_LINE;
        for (int64_t i = 0; i < GROUP_LINES<W>; ++i) __builtin_prefetch(lines + i * CACHE_LINE, 0, 2);
    }
    // The first pass over a panel has fetched all.
    Fetch<W, 0> next_pass(int64_t) const { return {}; }
};

// What a later operation reads (see fetch_ahead.h), chunk by chunk: a line with each unit, in every pass.
template <typename W>
struct ChunkFetch {
    static constexpr int64_t CHUNK_GROUPS = FetchAhead::LINES / W::UNITS;

    const char* const* chunks;
    int64_t first_group;

    void unit(int64_t group, int unit) const {
        group += first_group;
        const int64_t line = group % CHUNK_GROUPS * W::UNITS + unit;
        __builtin_prefetch(chunks[group / CHUNK_GROUPS] + line * CACHE_LINE, 0, 2);
    }
    ChunkFetch next_pass(int64_t num_groups) const { return {chunks, first_group + num_groups}; }
};

// sums[ROWS][VECS] += x[ROWS][..] * num_groups groups of a panel, of each so many vectors from `first` on
template <typename W, int ROWS, int VECS, typename F>
inline __attribute__((always_inline)) void multiply_columns(
    const typename W::X* x, int64_t x_stride, const uint8_t* groups, int64_t num_groups, int first,
    F fetch, float* target) {
    Vec sums[ROWS][VECS];
    // Unrolled by hand, or compilers take the sums through memory.
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) sums[r][v] = load(target + r * PANEL + (first + v) * VEC);
    }
    for (int64_t g = 0; g < num_groups; ++g, ++x, groups += W::GROUP_BYTES) {
        VecI products[ROWS][VECS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
            for (int v = 0; v < VECS; ++v) {
                products[r][v] = VecI{} + W::first_sum(x[r * x_stride]);
            }
        }
        for (int unit = 0; unit < W::UNITS; ++unit) {
            fetch.unit(g, unit);
            VecU weight[VECS];
#pragma GCC unroll 8
            for (int v = 0; v < VECS; ++v) weight[v] = W::unit(groups, unit, first + v);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) {
                const VecU unit_x = VecU{} + x[r * x_stride].units()[unit];
#pragma GCC unroll 8
                for (int v = 0; v < VECS; ++v) {
                    products[r][v] = multiply_add_bytes(products[r][v], weight[v], unit_x);
                }
            }
        }
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) {
            const typename W::Scales scales(groups, first + v);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) {
                const Vec group_products = __builtin_convertvector(products[r][v], Vec);
                sums[r][v] = scales.add(sums[r][v], group_products, x[r * x_stride]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) store(target + r * PANEL + (first + v) * VEC, sums[r][v]);
    }
}

// sums[ROWS][PANEL] += x[ROWS][..] * num_groups groups of a panel
template <typename W, int ROWS, typename F>
void multiply_tile(const typename W::X* x, int64_t x_stride, const uint8_t* groups,
                   int64_t num_groups, F fetch, float* sums) {
    constexpr int VECS = ROWS > TILE_ROWS / 2 ? TILE_VECS / PASSES : TILE_VECS;
    multiply_columns<W, ROWS, VECS>(x, x_stride, groups, num_groups, 0, fetch, sums);
    if constexpr (VECS < TILE_VECS) {
        multiply_columns<W, ROWS, VECS>(x, x_stride, groups, num_groups, VECS,
                                        fetch.next_pass(num_groups), sums);
    }
}

template <typename W, typename F>
void multiply_rows(int64_t num_rows, const typename W::X* x, int64_t x_stride,
                   const uint8_t* groups, int64_t num_groups, F fetch, float* sums) {
    constexpr decltype(&multiply_tile<W, 1, F>) TILE[TILE_ROWS + 1] = {
        nullptr,
        multiply_tile<W, 1, F>,
        multiply_tile<W, 2, F>,
        multiply_tile<W, 3, F>,
        multiply_tile<W, 4, F>,
        multiply_tile<W, 5, F>,
        multiply_tile<W, 6, F>,
    };
    // Rows are shared out evenly, so that no tile is left with a single one.
    const int64_t num_tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t tile = 0; tile < num_tiles; ++tile) {
        const int64_t first = num_rows * tile / num_tiles;
        const int64_t last = num_rows * (tile + 1) / num_tiles;
        TILE[last - first](x + first * x_stride, x_stride, groups, num_groups, fetch,
                           sums + first * PANEL);
    }
}

// Adds the products of one slab. While it stays in the L2 cache, what lies at `next` is fetched, evenly:
// a line of each unit in each pass of the first tiles, or more where there are few. The others fetch what
// is ahead of the product.
template <typename W>
void multiply_slab(int64_t num_rows, const typename W::X* x, int64_t x_stride,
                   const uint8_t* groups, int64_t num_groups, const uint8_t* next,
                   FetchAhead& ahead, float* sums) {
    constexpr int64_t FETCHING_TILES = (GROUP_LINES<W> + PASSES - 1) / PASSES;
    const int64_t num_tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS;
    int64_t row = 0;
    auto multiply = [&](auto fetch, int64_t end) {
        multiply_rows<W>(end - row, x + row * x_stride, x_stride, groups, num_groups, fetch,
                         sums + row * PANEL);
        row = end;
    };
    auto multiply_and_fetch_next = [&](auto num_fetching) {
        constexpr int64_t LINES = (FETCHING_TILES + num_fetching - 1) / num_fetching;
        for (int64_t tile = 0; tile < num_fetching; ++tile) {
            multiply(Fetch<W, LINES>{next}, num_rows * (tile + 1) / num_tiles);
            next += PASSES * num_groups * W::UNITS * Fetch<W, LINES>::UNIT_BYTES;
        }
    };
    if (num_rows <= TILE_ROWS / PASSES) {
        multiply(StreamFetch<W>{groups + AHEAD_BYTES}, num_rows);
    } else if (num_tiles == 1) {
        multiply_and_fetch_next(std::integral_constant<int64_t, 1>());
    } else if (num_tiles < FETCHING_TILES) {
        multiply_and_fetch_next(std::integral_constant<int64_t, 2>());
    } else {
        multiply_and_fetch_next(std::integral_constant<int64_t, FETCHING_TILES>());
        for (int64_t tile = FETCHING_TILES; tile < num_tiles && !ahead.is_done(); ++tile) {
            constexpr int64_t GROUPS = ChunkFetch<W>::CHUNK_GROUPS;
            const char* chunks[PASSES * SLAB_BYTES / W::GROUP_BYTES / GROUPS + 1];
            const char** end = chunks;
            ahead.take((PASSES * num_groups + GROUPS - 1) / GROUPS,
                       [&](const char* chunk) { *end++ = chunk; });
            multiply(ChunkFetch<W>{chunks, 0}, num_rows * (tile + 1) / num_tiles);
        }
    }
    multiply(Fetch<W, 0>{}, num_rows);
}

// The sums of one panel's features for num_rows rows of activations.
template <typename W>
void multiply_panel(const typename W::X* x, const uint8_t* panel, const uint8_t* next,
                    FetchAhead& ahead, float* sums, int64_t num_rows, int64_t groups_per_row) {
    constexpr int64_t SLAB_GROUPS = SLAB_BYTES / W::GROUP_BYTES;
    std::fill_n(sums, num_rows * PANEL, 0.0f);
    for (int64_t g = 0; g < groups_per_row; g += SLAB_GROUPS) {
        multiply_slab<W>(num_rows, x + g, groups_per_row, panel + g * W::GROUP_BYTES,
                         std::min(SLAB_GROUPS, groups_per_row - g), next + g * W::GROUP_BYTES, ahead,
                         sums);
    }
}

template <typename W>
int64_t panel_bytes(int64_t groups_per_row) {
    return groups_per_row * W::GROUP_BYTES + W::PANEL_END_BYTES;
}

template <typename W, typename R>
void multiply(const typename W::X* x, int64_t num_rows, int64_t groups_per_row, FetchAhead& ahead,
              const R& result) {
    auto panel = [&](int64_t i) {
        return static_cast<const uint8_t*>(result.weight.data) + i * panel_bytes<W>(groups_per_row);
    };
    parallel_pieces(panels_of(result.weight), num_rows, [&](const Piece& piece, int64_t next) {
        alignas(64) float sums[BLOCK_ROWS * PANEL];
        const uint8_t* end = panel(piece.panel) + groups_per_row * W::GROUP_BYTES;
        multiply_panel<W>(x + piece.first_row * groups_per_row, panel(piece.panel), panel(next),
                          ahead, sums, piece.num_rows, groups_per_row);
        result.store(piece, [&](int64_t row, int64_t i) {
            return W::finish(load(sums + row * PANEL + i), end, i);
        });
    });
}

template <typename W, typename R>
void quantize_and_multiply(const void* x, int64_t num_rows, FetchAhead& ahead, const R& result) {
    using X = typename W::X;
    const PackedWeight& weight = result.weight;
    const int64_t groups_per_row = groups_of(weight.in_features, W::GROUP);
    auto* groups = scratch<X>(num_rows * groups_per_row);
    quantize_rows(x, weight.dtype, num_rows, weight.in_features, groups);
    multiply<W>(groups, num_rows, groups_per_row, ahead, result);
}

// Calls body with the kind of a quantized weight.
template <typename Body>
auto with_kind(Layout layout, Body body) {
    if (layout == Layout::INT8) return body(Int8Weight());
    if (layout == Layout::Q8) return body(Q8Weight());
    return body(Q4Weight());
}

}  // namespace

int64_t quantized_panel_bytes(const PackedWeight& weight) {
    return with_kind(weight.layout, [&](auto kind) {
        using W = decltype(kind);
        return panel_bytes<W>(groups_of(weight.in_features, W::GROUP));
    });
}

template <typename R>
void quantized_product(const void* x, int64_t num_rows, FetchAhead& ahead, const R& result) {
    with_kind(result.weight.layout, [&](auto kind) {
        quantize_and_multiply<decltype(kind)>(x, num_rows, ahead, result);
    });
}

template void quantized_product(const void*, int64_t, FetchAhead&, const Result<float>&);
template void quantized_product(const void*, int64_t, FetchAhead&, const Result<BFloat16>&);
template void quantized_product(const void*, int64_t, FetchAhead&, const PanelMaxima&);
