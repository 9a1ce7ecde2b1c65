// Attention over the paged KV cache, with an online softmax over tiles of keys.
//
// Tiles start at fixed absolute positions and are taken in order, segments of tiles likewise, and a
// masked key adds an exact zero: so the bits of a result do not depend on which queries and requests
// are worked on together, nor on how many threads there are.
//
// Sources: FlashAttention-2 (Dao, 2023); Flash-Decoding (Dao et al., 2023) for the segments.

#include "attention_products.h"
#include "attention_scales.h"
#include "attention_tasks.h"
#include "online_softmax.h"
#include "ops.h"
#include "parallel.h"
#include "profile.h"
#include "scratch.h"

namespace {

// Rows of a KV head that a tile is multiplied by before the next ones: while they are, the keys stay in
// the L1 cache, and then the values.
constexpr int64_t GROUP_TILES = 4;
constexpr int64_t GROUP_ROWS = GROUP_TILES * TILE_ROWS;

// What a thread needs for a task. Scores and weights are those of a group of rows.
template <typename U>
struct Scratch {
    using Unit = typename U::Unit;

    alignas(64) Unit queries[MAX_ROWS * MAX_HEAD_DIM / U::PER_UNIT];  // [kv_head][row][dim_units]
    alignas(64) float scores[GROUP_ROWS * KEY_TILE];
    alignas(64) Unit weights[GROUP_ROWS * KEY_TILE / U::PER_UNIT];
    alignas(64) Unit halves[TILE_GROUPS][MAX_HEAD_DIM];
    // Of bytes, before they are scaled: scores, and then weights times values.
    alignas(64) int32_t products[GROUP_ROWS * MAX_HEAD_DIM];
    float scales[GROUP_ROWS];         // Of the weights of a row, as bytes.
    RowFactors<U> factors[MAX_ROWS];  // [kv_head][row]
    int64_t visible[MAX_ROWS];  // Lanes that each row of a KV head sees.
    Sums segment;
};

template <typename U>
void load_queries(const Attention<U>& a, const Task& task, Scratch<U>& s) {
    const int64_t group = a.heads_per_kv_head(), dim = a.layout.head_dim;
    const float factor = a.scale * SCORE_UNIT<U>;
    auto* row = s.queries;
    auto* factors = s.factors;
    for (int64_t i = 0; i < task.num_kv_heads; ++i) {
        for (int64_t token = task.first_token; token < task.end_token(); ++token) {
            const auto* head = a.q + token * a.q_stride + (task.first_kv_head + i) * group * dim;
            for (int64_t end = group; end > 0; --end, head += dim, row += a.dim_units()) {
                *factors++ = load_query<U>(head, dim, factor, row);
            }
        }
    }
    for (int64_t row = 0; row < task.num_queries * group; ++row) {
        s.visible[row] = a.lanes_to(task.first_position + row / group);
    }
}

// s.scores[row][lane], up to `width`
template <typename U, template <typename, int> class S>
void find_scores(const Attention<U>& a, const Tile<U>& tile, int64_t width, const Rows<U>& rows,
                 Ahead& ahead, Scratch<U>& s) {
    if constexpr (HAS_SCALES<U>) {
        score<U, S>(a, tile, width, rows, ahead, s.products);
        scale_scores(a.layout, tile, width, rows.count, s.products, s.scores);
    } else {
        score<U, S>(a, tile, width, rows, ahead, s.scores);
    }
    mask_fillers(a.layout, tile, rows.count, s.scores);
}

// s.weights[row][lane], up to `width`
template <typename U>
void find_weights(const Attention<U>& a, const Tile<U>& tile, int64_t width, const Rows<U>& rows,
                  Scratch<U>& s, Sums& sums) {
    for (int64_t row = 0; row < rows.count; ++row) {
        float* scores = s.scores + row * KEY_TILE;
        auto* weights = s.weights + row * KEY_TILE / U::PER_UNIT;
        auto soften = [&](auto* target) {
            soften_row<U>(scores, width, rows.visible[row] - tile.start, rows.factors[row].factor,
                          target, sums, rows.first + row, a.layout.padded_dim());
        };
        if constexpr (HAS_SCALES<U>) {
            soften(scores);
            s.scales[row] = quantize_weights(a.layout, tile, width, scores, weights);
        } else {
            soften(reinterpret_cast<typename U::Element*>(weights));
        }
    }
}

// sums[row] += s.weights[row][lane] * value[lane], up to `visible`
template <typename U, template <typename, int> class S>
void add_weighted(const Attention<U>& a, const Tile<U>& tile, int64_t visible, const Rows<U>& rows,
                  Ahead& ahead, Scratch<U>& s, Sums& sums) {
    const int64_t dim = a.layout.padded_dim();
    Values<U> parts[MAX_PARTS] = {};
    const int64_t num_parts = find_values(a, tile, visible, s.halves, parts);
    float* values = sums.values + rows.first * dim;
    if constexpr (HAS_SCALES<U>) {
        std::fill_n(s.products, rows.count * dim, 0);
        add_values<U, S>(parts, num_parts, rows.count, dim, s.weights, ahead, s.products);
        for (int64_t row = 0; row < rows.count; ++row) {
            add_scaled(s.products + row * dim, dim, s.scales[row], values + row * dim);
        }
    } else {
        add_values<U, S>(parts, num_parts, rows.count, dim, s.weights, ahead, values);
    }
}

template <typename U, template <typename, int> class S>
void attend_rows(const Attention<U>& a, const Tile<U>& tile, const Rows<U>& rows, Ahead& ahead,
                 Scratch<U>& s, Sums& sums) {
    // The last row sees most.
    const int64_t visible = std::min(rows.visible[rows.count - 1] - tile.start, tile.count);
    if (visible <= 0) return;
    const int64_t width = round_up(visible, VEC);
    find_scores<U, S>(a, tile, width, rows, ahead, s);
    find_weights(a, tile, width, rows, s, sums);
    add_weighted<U, S>(a, tile, visible, rows, ahead, s, sums);
}

// All rows of a task, group by group. The next tile is fetched meanwhile: by the steps of the products,
// or some of it before each group where more products follow than it takes.
template <typename U>
void attend_tile(const Attention<U>& a, const Task& task, TileWalk<U>& walk, Scratch<U>& s,
                 Sums& sums) {
    const int64_t num_rows = task.num_queries * a.heads_per_kv_head();
    const int64_t num_tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t num_groups = (num_tiles + GROUP_TILES - 1) / GROUP_TILES;
    Ahead& ahead = walk.ahead();
    const int64_t share = ahead.bytes_left() / (task.num_kv_heads * num_groups) + CACHE_LINE;
    auto first_row = [&](int64_t group) {
        return num_rows * (num_tiles * group / num_groups) / num_tiles;
    };
    for (int64_t head = 0; head < task.num_kv_heads; ++head) {
        const Tile<U> tile = walk.tile().of_head(head, a.layout);
        for (int64_t group = 0; group < num_groups; ++group) {
            const int64_t first = first_row(group), row = head * num_rows + first;
            const Rows<U> rows = {s.queries + row * a.dim_units(), s.factors + row,
                                  s.visible + first, first_row(group + 1) - first, row};
            if (num_tiles > 1) {
                ahead.fetch(share);
                attend_rows<U, Slab>(a, tile, rows, ahead, s, sums);
            } else {
                attend_rows<U, StreamedSlab>(a, tile, rows, ahead, s, sums);
            }
        }
    }
    ahead.fetch(ahead.bytes_left());
    walk.advance();
}

template <typename U>
void attend(const Attention<U>& a, const Task& task, TileWalk<U>& walk, Scratch<U>& s,
            Sums& sums) {
    const int64_t rows = task.num_rows(a.heads_per_kv_head()), dim = a.layout.padded_dim();
    load_queries(a, task, s);
    for (int64_t lane = task.first_lane; lane < task.last_lane;) {
        const bool is_first = lane == task.first_lane;
        Sums& segment = is_first ? sums : s.segment;
        segment.clear(rows, dim);
        const int64_t end = std::min(lane + SEGMENT, task.last_lane);
        for (; lane < end; lane += KEY_TILE) attend_tile(a, task, walk, s, segment);
        if (!is_first) merge<U>(sums, segment, rows, dim);
    }
}

template <typename U>
void store_rows(const Attention<U>& a, const Task& task, const Sums& sums) {
    const int64_t group = a.heads_per_kv_head(), dim = a.layout.head_dim;
    int64_t row = 0;
    for (int64_t i = 0; i < task.num_kv_heads; ++i) {
        const int64_t first_head = (task.first_kv_head + i) * group;
        for (int64_t token = task.first_token; token < task.end_token(); ++token) {
            auto* out = a.out + (token * a.num_heads + first_head) * dim;
            for (int64_t end = row + group; row < end; ++row, out += dim) {
                const float* values = sums.values + row * a.layout.padded_dim();
                const float inverse = 1.0f / sum(sums.weights[row]);
                for_each_vec(dim, [&](int64_t d, auto, auto store) {
                    store(out + d, load(values + d) * inverse);
                });
            }
        }
    }
}

template <typename U>
void run(const Attention<U>& a, const Plan& plan) {
    const auto& tasks = plan.tasks;
    Sums* parts = scratch<Sums>(plan.num_parts);
    parallel_for(plan.num_runs(), plan.num_threads, [&](int64_t run) {
        const int64_t begin = plan.runs[run], end = plan.runs[run + 1];
        if (begin == end) return;
        Scratch<U> s;
        Sums sums;
        TileWalk<U> walk(a, &tasks[begin], tasks.data() + end);
        for (int64_t i = begin; i < end; ++i) {
            if (tasks[i].part < 0) {
                attend(a, tasks[i], walk, s, sums);
                store_rows(a, tasks[i], sums);
            } else {
                attend(a, tasks[i], walk, s, parts[tasks[i].part]);
            }
        }
    });
    parallel_for(plan.cut.size(), plan.num_threads, [&](int64_t i) {
        const Task& task = tasks[plan.cut[i].first];
        const int64_t rows = task.num_rows(a.heads_per_kv_head()), dim = a.layout.padded_dim();
        Sums* sums = parts + task.part;
        for (int64_t part = 1; part < plan.cut[i].num_parts; ++part) {
            merge<U>(*sums, sums[part], rows, dim);
        }
        store_rows(a, task, *sums);
    });
}

}  // namespace

extern "C" void paged_attention(const void* q, const void* pages,
                                const int32_t* block_tables, const int32_t* seq_lens,
                                const int32_t* query_start_loc, void* out, int64_t num_requests,
                                int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                                int64_t block_size, int64_t q_stride, int64_t table_stride,
                                float scale, int32_t dtype, int32_t cache_dtype) {
    const profile::Timer timer(profile::Part::ATTENTION);
    with_kv_unit(dtype, cache_dtype, [&](auto unit) {
        using U = decltype(unit);
        using Unit = typename U::Unit;
        using Element = typename U::Element;
        const Attention<U> attention = {static_cast<const Element*>(q),
                                        static_cast<const Unit*>(pages),
                                        block_tables,
                                        static_cast<Element*>(out),
                                        {num_kv_heads, head_dim, block_size},
                                        num_heads,
                                        q_stride,
                                        table_stride,
                                        scale};
        run(attention, Plan(attention, seq_lens, query_start_loc, num_requests));
    });
}
