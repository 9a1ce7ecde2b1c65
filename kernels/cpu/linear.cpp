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

// How far ahead of the product a panel is fetched that only few rows are multiplied by; the less, the
// more rows from the third on, for they take longer over each byte.
constexpr int64_t AHEAD_BYTES = 2048;
// Bytes of a panel for each step along k; the first tiles fetch the next panel, each an equal share. Two
// would fetch it faster than memory gives it, and wait; four would leave no tile of 24 rows for what is
// ahead of the product. Where rows make fewer tiles, two fetch it.
constexpr int64_t STEP_BYTES = PANEL * 4;
constexpr int64_t FETCHING_TILES = std::clamp<int64_t>(STEP_BYTES / CACHE_LINE, 1, 3);

// A part of a slab whose steps each fetch a line of what a later operation reads. Past the L2 cache,
// where it would take the place of what the product reads again and again.
template <typename U>
struct PartialSlab : Slab<U, TILE_VECS> {
    const char* ahead;

    void fetch(int64_t k) const { __builtin_prefetch(ahead + k * CACHE_LINE, 0, 0); }
};

// Adds the products of one slab for the rows of a tile, and takes a chunk for each part of it.
template <typename U>
void multiply_and_fetch(const Slab<U, TILE_VECS>& slab, Matrix<const typename U::Unit> x,
                        FetchAhead& ahead, Matrix<float> sums, int64_t num_rows) {
    constexpr int64_t STEPS = FetchAhead::LINES;
    PartialSlab<U> parts[(SLAB_UNITS + STEPS - 1) / STEPS];
    int64_t num_parts = 0;
    ahead.take((slab.depth + STEPS - 1) / STEPS, [&](const char* chunk) {
        const int64_t k = num_parts * STEPS;
        auto& part = parts[num_parts++];
        static_cast<Slab<U, TILE_VECS>&>(part) =
            Slab<U, TILE_VECS>::at(slab.columns[0] + k * slab.stride, slab.stride, slab.first + k,
                                   std::min(STEPS, slab.depth - k));
        part.ahead = chunk;
    });
    multiply_rows<U, TILE_VECS>(num_rows, x, parts, num_parts, sums);
}

// Adds the products of one slab for num_rows rows of activations. While it stays in the L2 cache, what
// lies at `next` is fetched, evenly, so that memory never rests and never has to be waited for; then
// what is ahead of the product.
template <typename U>
void multiply_slab(const Slab<U, TILE_VECS>& slab, Matrix<const typename U::Unit> x,
                   const char* next, FetchAhead& ahead, Matrix<float> sums, int64_t num_rows) {
    const int64_t num_tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS;
    int64_t row = 0;
    auto multiply = [&](const auto& some_slab, int64_t end) {
        multiply_rows<U, TILE_VECS>(end - row, {x.row(row), x.stride}, &some_slab, 1,
                                    {sums.row(row), sums.stride});
        row = end;
    };
    auto multiply_and_fetch_next = [&](auto num_fetching) {
        constexpr int64_t BYTES = (STEP_BYTES + num_fetching - 1) / num_fetching;
        for (int64_t tile = 0; tile < num_fetching; ++tile) {
            multiply(FetchingSlab<U, TILE_VECS, BYTES>{slab, next}, num_rows * (tile + 1) / num_tiles);
            next += slab.depth * BYTES;
        }
    };
    if (num_tiles < std::min<int64_t>(FETCHING_TILES, 2)) {
        const auto* panel = reinterpret_cast<const char*>(slab.columns[0]);
        const int64_t ahead_bytes = std::min(AHEAD_BYTES, 2 * AHEAD_BYTES / num_rows);
        multiply(StreamedSlab<U, TILE_VECS>{slab, panel + ahead_bytes}, num_rows);
    } else if (num_tiles < FETCHING_TILES) {
        multiply_and_fetch_next(std::integral_constant<int64_t, 2>());
    } else {
        multiply_and_fetch_next(std::integral_constant<int64_t, FETCHING_TILES>());
        for (int64_t tile = FETCHING_TILES; tile < num_tiles && !ahead.is_done(); ++tile) {
            const int64_t end = num_rows * (tile + 1) / num_tiles;
            multiply_and_fetch<U>(slab, {x.row(row), x.stride}, ahead,
                                  {sums.row(row), sums.stride}, end - row);
            row = end;
        }
    }
    multiply(slab, num_rows);
}

// The sums of one panel's features for num_rows rows of activations.
template <typename U>
void multiply_panel(Matrix<const typename U::Unit> x, const typename U::Unit* panel,
                    const typename U::Unit* next, FetchAhead& ahead, float* sums,
                    int64_t num_rows) {
    const int64_t in_units = x.stride;
    std::fill_n(sums, num_rows * PANEL, 0.0f);
    for (int64_t k = 0; k < in_units; k += SLAB_UNITS) {
        const auto slab = Slab<U, TILE_VECS>::at(panel + k * PANEL, PANEL, k,
                                                 std::min(SLAB_UNITS, in_units - k));
        multiply_slab<U>(slab, x, reinterpret_cast<const char*>(next + k * PANEL), ahead,
                         {sums, PANEL}, num_rows);
    }
}

template <typename U, typename R>
void multiply(const void* x, int64_t num_rows, FetchAhead& ahead, const R& result) {
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
                          panel(next), ahead, sums, piece.num_rows);
        result.store(piece, [&](int64_t row, int64_t i) { return load(sums + row * PANEL + i); });
    });
}

template <typename R>
void multiply(const void* x, int64_t num_rows, FetchAhead& ahead, const R& result) {
    const profile::Timer timer(profile::is_in_layers ? profile::Part::LINEAR : profile::Part::HEAD);
    const PackedWeight& weight = result.weight;
    if (weight.layout != Layout::PANELS) return quantized_product(x, num_rows, ahead, result);
    with_unit(weight.dtype, [&](auto unit) { multiply<decltype(unit)>(x, num_rows, ahead, result); });
}

}  // namespace

void product(const PackedWeight& weight, const void* x, void* out, int64_t num_rows, bool adds,
             FetchAhead& ahead) {
    with_dtype(weight.out_dtype, [&](auto element) {
        using T = decltype(element);
        multiply(x, num_rows, ahead, Result<T>{weight, static_cast<T*>(out), adds});
    });
}

void fetch_while_waiting(const PackedWeight& weight) {
    const int64_t element_bytes = weight.dtype == 0 ? 4 : 2;
    const int64_t panel_bytes = weight.layout == Layout::PANELS
                                    ? PANEL * weight.in_features * element_bytes
                                    : quantized_panel_bytes(weight);
    thread_pool::fetch_while_waiting(weight.data, panels_of(weight), panel_bytes);
}

template <typename R>
void product(const void* x, int64_t num_rows, const R& result) {
    FetchAhead nothing;
    multiply(x, num_rows, nothing, result);
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
    FetchAhead nothing;
    product(*weight, x, out, num_rows, false, nothing);
}

extern "C" void add_linear(const PackedWeight* weight, const void* x, void* residual,
                           int64_t num_rows) {
    FetchAhead nothing;
    product(*weight, x, residual, num_rows, true, nothing);
}
