// Matrix product of activations and a quantized weight: both as bytes, sums of a group exact.
//
// The sums of one output over the groups of k are added in float32, in order.

#include "quantized_linear.h"

#include <memory>

#include "quantized_weight.h"

namespace {

// Bytes of a panel taken at a time, so that they stay in the L2 cache.
constexpr int64_t SLAB_BYTES = 256 * 1024;

// sums[ROWS][PANEL] += x[ROWS][..] * num_groups groups of a panel
template <typename W, int ROWS>
void multiply_tile(const typename W::X* x, int64_t x_stride, const uint8_t* groups,
                   int64_t num_groups, float* sums) {
    constexpr int UNITS = W::GROUP / 4;
    for (int64_t g = 0; g < num_groups; ++g, ++x, groups += W::GROUP_BYTES) {
        VecI products[ROWS][TILE_VECS];
        for (int r = 0; r < ROWS; ++r) {
            for (int v = 0; v < TILE_VECS; ++v) {
                products[r][v] = VecI{} + W::first_sum(x[r * x_stride]);
            }
        }
        for (int unit = 0; unit < UNITS; ++unit) {
            VecU weight[TILE_VECS];
            for (int v = 0; v < TILE_VECS; ++v) weight[v] = W::unit(groups, unit, v);
            for (int r = 0; r < ROWS; ++r) {
                const uint32_t unit_x = x[r * x_stride].units()[unit];
                for (int v = 0; v < TILE_VECS; ++v) {
                    products[r][v] = multiply_add_bytes(products[r][v], weight[v], unit_x);
                }
            }
        }
        // The sums have no registers left: were the compiler to know where they are, it would try.
        asm volatile("" : "+r"(sums));
        for (int v = 0; v < TILE_VECS; ++v) {
            const typename W::Scales scales(groups, v);
            for (int r = 0; r < ROWS; ++r) {
                float* sum = sums + r * PANEL + v * VEC;
                store(sum, scales.add(load(sum), __builtin_convertvector(products[r][v], Vec),
                                      x[r * x_stride]));
            }
        }
    }
}

template <typename W>
void multiply_rows(int64_t num_rows, const typename W::X* x, int64_t x_stride,
                   const uint8_t* groups, int64_t num_groups, float* sums) {
    constexpr decltype(&multiply_tile<W, 1>) TILE[TILE_ROWS + 1] = {
        nullptr,
        multiply_tile<W, 1>,
        multiply_tile<W, 2>,
        multiply_tile<W, 3>,
        multiply_tile<W, 4>,
        multiply_tile<W, 5>,
        multiply_tile<W, 6>,
    };
    // Rows are shared out evenly, so that no tile is left with a single one.
    const int64_t num_tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t tile = 0; tile < num_tiles; ++tile) {
        const int64_t first = num_rows * tile / num_tiles;
        const int64_t last = num_rows * (tile + 1) / num_tiles;
        TILE[last - first](x + first * x_stride, x_stride, groups, num_groups, sums + first * PANEL);
    }
}

// The sums of one panel's features for num_rows rows of activations.
template <typename W>
void multiply_panel(const typename W::X* x, const uint8_t* panel, float* sums, int64_t num_rows,
                    int64_t groups_per_row) {
    constexpr int64_t SLAB_GROUPS = SLAB_BYTES / W::GROUP_BYTES;
    std::fill_n(sums, num_rows * PANEL, 0.0f);
    for (int64_t g = 0; g < groups_per_row; g += SLAB_GROUPS) {
        multiply_rows<W>(num_rows, x + g, groups_per_row, panel + g * W::GROUP_BYTES,
                         std::min(SLAB_GROUPS, groups_per_row - g), sums);
    }
}

template <typename W, typename T>
void multiply(const typename W::X* x, int64_t num_rows, int64_t groups_per_row,
              const Result<T>& result) {
    const int64_t units_bytes = groups_per_row * W::GROUP_BYTES;
    const auto* panels = static_cast<const uint8_t*>(result.weight.data);
    parallel_pieces(panels_of(result.weight), num_rows, [&](const Piece& piece, int64_t) {
        alignas(64) float sums[BLOCK_ROWS * PANEL];
        const uint8_t* panel = panels + piece.panel * (units_bytes + W::PANEL_END_BYTES);
        multiply_panel<W>(x + piece.first_row * groups_per_row, panel, sums, piece.num_rows,
                          groups_per_row);
        result.store(piece, [&](int64_t row, int64_t i) {
            return W::finish(load(sums + row * PANEL + i), panel + units_bytes, i);
        });
    });
}

// Memory that a thread keeps from one product to the next.
void* scratch(int64_t bytes) {
    thread_local std::unique_ptr<char[]> memory;
    thread_local int64_t size = 0;
    if (size < bytes) {
        memory.reset(new char[bytes]);
        size = bytes;
    }
    return memory.get();
}

template <typename W>
void quantize_and_multiply(const PackedWeight& weight, const void* x, void* out, int64_t num_rows,
                           bool adds) {
    using X = typename W::X;
    const int64_t groups_per_row = groups_of(weight.in_features, W::GROUP);
    auto* groups = static_cast<X*>(scratch(num_rows * groups_per_row * sizeof(X)));
    quantize_rows(x, weight.dtype, num_rows, weight.in_features, groups);
    with_dtype(weight.out_dtype, [&](auto element) {
        const Result<decltype(element)> result = {weight, static_cast<decltype(element)*>(out), adds};
        multiply<W>(groups, num_rows, groups_per_row, result);
    });
}

}  // namespace

void quantized_product(const PackedWeight& weight, const void* x, void* out, int64_t num_rows,
                       bool adds) {
    switch (weight.layout) {
        case Layout::INT8:
            return quantize_and_multiply<Int8Weight>(weight, x, out, num_rows, adds);
        case Layout::Q8:
            return quantize_and_multiply<Q8Weight>(weight, x, out, num_rows, adds);
        case Layout::Q4:
            return quantize_and_multiply<Q4Weight>(weight, x, out, num_rows, adds);
        case Layout::PANELS:
            break;
    }
}
