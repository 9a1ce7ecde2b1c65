// Matrix product of activations and a packed weight, for float32 and for bfloat16 with float32 sums.
//
// The weight lies in panels of PANEL output features. In a panel, the units (see tile.h) of all
// features at one k come one after the other, so the inner loop reads the weight as a stream.

#include "linear.h"
#include "panel_maxima.h"
#include "profile.h"
#include "quantized_linear.h"

namespace {

// Units of k taken at a time, so that the slab of a panel stays in the L2 cache: 256 KiB.
constexpr int64_t SLAB_UNITS = 65536 / PANEL;

// How far ahead of the product a panel is fetched that only few rows are multiplied by.
constexpr int64_t AHEAD_BYTES = 2048;
// Tiles that it takes to fetch the next panel, at a line for each step.
constexpr int64_t FETCHING_TILES = std::max<int64_t>(PANEL * 4 / CACHE_LINE, 1);

// Adds the products of one slab for num_rows rows of activations. While it stays in the L2 cache, what
// lies at `next` is fetched, evenly, so that memory never rests and never has to be waited for.
template <typename U>
void multiply_slab(const Slab<U, TILE_VECS>& slab, Matrix<const typename U::Unit> x,
                   const char* next, Matrix<float> sums, int64_t num_rows) {
    const int64_t num_tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS;
    int64_t row = 0;
    auto multiply = [&](const auto& some_slab, int64_t end) {
        multiply_rows<U, TILE_VECS>(end - row, {x.row(row), x.stride}, &some_slab, 1,
                                    {sums.row(row), sums.stride});
        row = end;
    };
    if (num_tiles < FETCHING_TILES) {
        const auto* ahead = reinterpret_cast<const char*>(slab.columns[0]) + AHEAD_BYTES;
        multiply(StreamedSlab<U, TILE_VECS>{slab, ahead}, num_rows / num_tiles);
    } else {
        for (int64_t tile = 0; tile < FETCHING_TILES; ++tile) {
            multiply(FetchingSlab<U, TILE_VECS, CACHE_LINE>{slab, next},
                     num_rows * (tile + 1) / num_tiles);
            next += slab.depth * CACHE_LINE;
        }
    }
    multiply(slab, num_rows);
}

// The sums of one panel's features for num_rows rows of activations.
template <typename U>
void multiply_panel(Matrix<const typename U::Unit> x, const typename U::Unit* panel,
                    const typename U::Unit* next, float* sums, int64_t num_rows) {
    const int64_t in_units = x.stride;
    std::fill_n(sums, num_rows * PANEL, 0.0f);
    for (int64_t k = 0; k < in_units; k += SLAB_UNITS) {
        const auto slab = Slab<U, TILE_VECS>::at(panel + k * PANEL, PANEL, k,
                                                 std::min(SLAB_UNITS, in_units - k));
        multiply_slab<U>(slab, x, reinterpret_cast<const char*>(next + k * PANEL), {sums, PANEL},
                         num_rows);
    }
}

template <typename U, typename R>
void multiply(const void* x, int64_t num_rows, const R& result) {
    using Unit = typename U::Unit;
    const PackedWeight& weight = result.weight;
    const int64_t in_units = weight.in_features / U::PER_UNIT;
    const auto* rows = static_cast<const Unit*>(x);
    auto panel = [&](int64_t i) {
        return static_cast<const Unit*>(weight.data) + i * PANEL * in_units;
    };
    parallel_pieces(panels_of(weight), num_rows, [&](const Piece& piece, int64_t next) {
        alignas(64) float sums[BLOCK_ROWS * PANEL];
        multiply_panel<U>({rows + piece.first_row * in_units, in_units}, panel(piece.panel),
                          panel(next), sums, piece.num_rows);
        result.store(piece, [&](int64_t row, int64_t i) { return load(sums + row * PANEL + i); });
    });
}

void run(const PackedWeight& weight, const void* x, void* out, int64_t num_rows, bool adds) {
    with_dtype(weight.out_dtype, [&](auto element) {
        using T = decltype(element);
        product(x, num_rows, Result<T>{weight, static_cast<T*>(out), adds});
    });
}

}  // namespace

template <typename R>
void product(const void* x, int64_t num_rows, const R& result) {
    const profile::Timer timer(profile::is_in_layers ? profile::Part::LINEAR : profile::Part::HEAD);
    const PackedWeight& weight = result.weight;
    if (weight.layout != Layout::PANELS) return quantized_product(x, num_rows, result);
    with_unit(weight.dtype, [&](auto unit) { multiply<decltype(unit)>(x, num_rows, result); });
}

template void product(const void*, int64_t, const PanelMaxima&);

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
    run(*weight, x, out, num_rows, false);
}

extern "C" void add_linear(const PackedWeight* weight, const void* x, void* residual,
                           int64_t num_rows) {
    run(*weight, x, residual, num_rows, true);
}
