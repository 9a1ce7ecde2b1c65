// Matrix product of activations and a packed weight, for float32 and for bfloat16 with float32 sums.
//
// The weight lies in panels of PANEL output features. In a panel, the units (see tile.h) of all
// features at one k come one after the other, so the inner loop reads the weight as a stream.

#include "ops.h"
#include "parallel.h"
#include "quantized_linear.h"
#include "tile.h"
#include "vec.h"

namespace {

constexpr int PANEL = TILE_VECS * VEC;
// Units of k taken at a time, so that the slab of a panel stays in the L2 cache: 256 KiB.
constexpr int64_t SLAB_UNITS = 65536 / PANEL;
// Rows taken at a time, so that their sums stay in the L1 cache beside the activations.
constexpr int64_t BLOCK_ROWS = 96;

struct Shape {
    int64_t num_rows, out_features, in_units;
};

// The sums of one panel's features for num_rows rows of activations.
template <typename U>
void multiply_panel(const typename U::Unit* x, const typename U::Unit* panel, float* sums,
                    int64_t num_rows, int64_t in_units) {
    std::fill_n(sums, num_rows * PANEL, 0.0f);
    for (int64_t k = 0; k < in_units; k += SLAB_UNITS) {
        const auto slab = Slab<U, TILE_VECS>::at(panel + k * PANEL, PANEL, k,
                                                 std::min(SLAB_UNITS, in_units - k));
        multiply_rows<U, TILE_VECS>(num_rows, {x, in_units}, &slab, 1, {sums, PANEL});
    }
}

template <typename Out>
void store_block(const float* sums, Out* out, int64_t num_rows, int64_t stride, int64_t features) {
    for (int64_t r = 0; r < num_rows; ++r) {
        for_each_vec(features, [&](int64_t i, auto, auto store) {
            store(out + r * stride + i, load(sums + r * PANEL + i));
        });
    }
}

// Threads share the (panel, tile of rows) pairs, panel by panel, so that each reads few panels.
template <typename U, typename Out>
void multiply(const void* x, const void* panels, Out* out, Shape shape) {
    using Unit = typename U::Unit;
    const int64_t num_panels = (shape.out_features + PANEL - 1) / PANEL;
    const int64_t num_tiles = (shape.num_rows + TILE_ROWS - 1) / TILE_ROWS;
    parallel_ranges(num_panels * num_tiles, 1, [&](int64_t begin, int64_t end) {
        alignas(64) float sums[BLOCK_ROWS * PANEL];
        while (begin < end) {
            const int64_t feature = begin / num_tiles * PANEL, tile = begin % num_tiles;
            const int64_t tiles = std::min({BLOCK_ROWS / TILE_ROWS, num_tiles - tile, end - begin});
            const int64_t row = tile * TILE_ROWS;
            const int64_t rows = std::min(tiles * TILE_ROWS, shape.num_rows - row);
            multiply_panel<U>(static_cast<const Unit*>(x) + row * shape.in_units,
                              static_cast<const Unit*>(panels) + feature * shape.in_units, sums,
                              rows, shape.in_units);
            store_block(sums, out + row * shape.out_features + feature, rows, shape.out_features,
                        std::min<int64_t>(PANEL, shape.out_features - feature));
            begin += tiles;
        }
    });
}

}  // namespace

extern "C" int64_t panel_width() { return PANEL; }

// Whether panels of bfloat16 are the best that this machine can do.
extern "C" int64_t prefers_panels() {
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
    return 1;
#else
    return 0;
#endif
}

extern "C" void linear(const PackedWeight* weight, const void* x, void* out, int64_t num_rows) {
    const PackedWeight& w = *weight;
    if (w.layout != Layout::PANELS) return quantized_linear(w, x, out, num_rows);
    with_dtype(w.out_dtype, [&](auto element) {
        auto* target = static_cast<decltype(element)*>(out);
        with_unit(w.dtype, [&](auto unit) {
            using U = decltype(unit);
            multiply<U>(x, w.data, target, {num_rows, w.out_features, w.in_features / U::PER_UNIT});
        });
    });
}
