// Attention over the paged KV cache, with an online softmax over tiles of keys.
//
// Tiles start at fixed absolute positions and are taken in order, segments of tiles likewise, and a
// masked key adds an exact zero: so the bits of a result do not depend on which queries and requests
// are worked on together, nor on how many threads there are.
//
// Sources: FlashAttention-2 (Dao, 2023); Flash-Decoding (Dao et al., 2023) for the segments.

#include <cmath>
#include <limits>
#include <vector>

#include "attention_tiles.h"
#include "ops.h"
#include "parallel.h"

namespace {

// Lanes of a request that are summed up apart from the others, so that threads can share a long one.
constexpr int64_t SEGMENT = 8 * KEY_TILE;
constexpr int64_t MAX_ROWS = 64;
constexpr int64_t MAX_HEAD_DIM = 256;
constexpr float LOWEST = -std::numeric_limits<float>::infinity();

// What rows have seen: sum of weight * value, sum of weights, and the score that weights relate to.
struct Sums {
    alignas(64) float values[MAX_ROWS * MAX_HEAD_DIM];  // [row][padded_dim]
    Vec weights[MAX_ROWS];  // To be added up lane by lane.
    float largest[MAX_ROWS];

    void clear(int64_t rows, int64_t dim) {
        std::fill_n(values, rows * dim, 0.0f);
        std::fill_n(weights, rows, Vec{});
        std::fill_n(largest, rows, LOWEST);
    }
};

template <typename U>
struct Scratch {
    alignas(64) typename U::Unit queries[MAX_ROWS * MAX_HEAD_DIM / U::PER_UNIT];
    alignas(64) float scores[MAX_ROWS * KEY_TILE];
    alignas(64) typename U::Unit weights[MAX_ROWS * KEY_TILE / U::PER_UNIT];
    alignas(64) typename U::Unit last_values[KEY_TILE / PAGE_LANES][MAX_HEAD_DIM];
};

// Scores are multiplied by this, and their exponential taken to the base that suits the type.
template <typename U>
constexpr float SCORE_UNIT = std::is_same_v<U, Float32Unit> ? 1.0f : 1.44269504088896341f;

template <typename U>
Vec exponential(Vec score) {
    if constexpr (std::is_same_v<U, Float32Unit>) return exp(score);
    return exp2_coarse(score);
}

template <typename U>
void load_queries(const Attention<U>& a, const Task& task, Scratch<U>& s) {
    const int64_t group = a.heads_per_kv_head(), dim = a.layout.head_dim;
    for (int64_t query = 0; query < task.num_queries; ++query) {
        const auto* q = a.q + (task.first_token + query) * a.q_stride + task.kv_head * group * dim;
        memcpy(s.queries + query * group * a.dim_units(), q, group * dim * sizeof *q);
    }
}

// The scores of as many lanes as VECS vectors hold.
template <typename U, int VECS>
void score_lanes(const Attention<U>& a, const Tile<U>& tile, int64_t lane, int64_t rows,
                 Scratch<U>& s) {
    Slab<U, VECS> slab = {{}, a.layout.key_stride(), 0, a.dim_units()};
    for (int v = 0; v < VECS; ++v) {
        const int64_t here = lane + v * VEC;
        slab.columns[v] = tile.keys[here / PAGE_LANES] + here % PAGE_LANES;
    }
    multiply_rows<U, VECS>(rows, {s.queries, a.dim_units()}, &slab, 1, {s.scores + lane, KEY_TILE});
}

// scores[row][lane] = query[row] * key[lane], up to the end of the last vector
template <typename U>
void score(const Attention<U>& a, const Tile<U>& tile, int64_t rows, Scratch<U>& s) {
    std::fill_n(s.scores, rows * KEY_TILE, 0.0f);
    int64_t lane = 0;
    for (; lane + TILE_VECS * VEC <= tile.width(); lane += TILE_VECS * VEC) {
        score_lanes<U, TILE_VECS>(a, tile, lane, rows, s);
    }
    for (; lane < tile.width(); lane += VEC) score_lanes<U, 1>(a, tile, lane, rows, s);
}

// Turns a row's scores into weights relative to its largest score so far, and rescales its sums.
template <typename U>
void soften_row(float* scores, int64_t width, int64_t num_visible, float factor,
                typename U::Unit* weights, float* sums, int64_t dim, Vec& weight_sum,
                float& largest) {
    for (int64_t i = std::max<int64_t>(num_visible, 0); i < width; ++i) scores[i] = LOWEST;
    Vec maxima = splat(LOWEST);
    for (int64_t i = 0; i < width; i += VEC) maxima = max(load(scores + i), maxima);
    const float new_largest = std::max(largest, max(maxima) * factor);
    // Where nothing is visible yet, all weights are zero.
    const Vec base = splat(new_largest == LOWEST ? 0.0f : new_largest);
    if (new_largest != largest) {
        const Vec rescale = exponential<U>(splat(largest - new_largest));
        weight_sum *= rescale;
        for (int64_t i = 0; i < dim; i += VEC) store(sums + i, load(sums + i) * rescale);
        largest = new_largest;
    }
    for (int64_t i = 0; i < width; i += VEC) {
        const Vec weight = exponential<U>(fma(load(scores + i), splat(factor), -base));
        store(reinterpret_cast<typename U::Element*>(weights) + i, weight);
        weight_sum += weight;
    }
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
// Each group of lanes, and what is left of one of which the last unit was written by half.
constexpr int64_t MAX_PARTS = 2 * KEY_TILE / PAGE_LANES;

template <typename U, int VECS>
void add_columns(const Values<U>* parts, int64_t num_parts, int64_t rows, int64_t dim,
                 int64_t column, const typename U::Unit* weights, float* sums) {
    Slab<U, VECS> slabs[MAX_PARTS];
    for (int64_t p = 0; p < num_parts; ++p) {
        slabs[p] = Slab<U, VECS>::at(parts[p].data + column, dim, parts[p].first, parts[p].depth);
    }
    multiply_rows<U, VECS>(rows, {weights, KEY_TILE / U::PER_UNIT}, slabs, num_parts,
                           {sums + column, dim});
}

// sums[row] += weight[row][lane] * value[lane], without touching lanes that nobody has written.
template <typename U>
void add_values(const Attention<U>& a, const Tile<U>& tile, int64_t rows, Scratch<U>& s,
                float* sums) {
    const int64_t dim = a.layout.padded_dim();
    Values<U> parts[MAX_PARTS];
    int64_t num_parts = 0;
    for (int64_t group = 0; group * PAGE_LANES < tile.count; ++group) {
        const int64_t offset = (tile.start + group * PAGE_LANES) % a.layout.lanes();
        const int64_t written = std::min({PAGE_LANES, tile.count - group * PAGE_LANES,
                                          a.layout.block_size - offset});
        const int64_t first = group * PAGE_LANES / U::PER_UNIT, depth = written / U::PER_UNIT;
        parts[num_parts++] = {tile.values[group], first, depth};
        if (written % U::PER_UNIT == 0) continue;
        const auto* half = tile.values[group] + depth * dim;
        auto* last = s.last_values[group];
        for (int64_t i = 0; i < dim; ++i) last[i] = U::first_of(half[i]);
        parts[num_parts++] = {last, first + depth, 1};
    }
    int64_t column = 0;
    for (; column + TILE_VECS * VEC <= dim; column += TILE_VECS * VEC) {
        add_columns<U, TILE_VECS>(parts, num_parts, rows, dim, column, s.weights, sums);
    }
    for (; column < dim; column += VEC) {
        add_columns<U, 1>(parts, num_parts, rows, dim, column, s.weights, sums);
    }
}

template <typename U>
void attend_segment(const Attention<U>& a, const Task& task, int64_t segment, Scratch<U>& s,
                    Sums& sums) {
    const int64_t group = a.heads_per_kv_head(), rows = task.num_queries * group;
    const int64_t dim = a.layout.padded_dim(), end = a.lanes_to(task.last_position());
    const int64_t segment_end = std::min(end, (segment + 1) * SEGMENT);
    const float factor = a.scale * SCORE_UNIT<U>;
    sums.clear(rows, dim);
    Tile<U> tile = find_tile(a, task, segment * SEGMENT, segment_end);
    while (tile.count > 0) {
        const int64_t start = tile.start + KEY_TILE;
        Tile<U> next = {start, 0, {}, {}};
        if (start < segment_end) {
            next = find_tile(a, task, start, segment_end);
            prefetch(a, next);
        }
        score(a, tile, rows, s);
        mask_fillers(a.layout, tile, rows, s.scores);
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t visible = a.lanes_to(task.first_position + row / group) - tile.start;
            soften_row<U>(s.scores + row * KEY_TILE, tile.width(), std::min(visible, tile.count),
                          factor, s.weights + row * KEY_TILE / U::PER_UNIT, sums.values + row * dim,
                          dim, sums.weights[row], sums.largest[row]);
        }
        add_values(a, tile, rows, s, sums.values);
        tile = next;
    }
}

// Adds the sums of the segment that follows.
template <typename U>
void merge(Sums& all, const Sums& next, int64_t rows, int64_t dim) {
    for (int64_t row = 0; row < rows; ++row) {
        // Nothing of the segment is visible to this row.
        if (sum(next.weights[row]) == 0.0f) continue;
        const float largest = std::max(all.largest[row], next.largest[row]);
        const Vec old_scale = exponential<U>(splat(all.largest[row] - largest));
        const Vec new_scale = exponential<U>(splat(next.largest[row] - largest));
        all.largest[row] = largest;
        all.weights[row] = all.weights[row] * old_scale + next.weights[row] * new_scale;
        for (int64_t i = row * dim; i < (row + 1) * dim; i += VEC) {
            store(all.values + i, fma(load(all.values + i), old_scale,
                                      load(next.values + i) * new_scale));
        }
    }
}

template <typename U>
void store_rows(const Attention<U>& a, const Task& task, const Sums& sums) {
    const int64_t group = a.heads_per_kv_head(), dim = a.layout.head_dim;
    for (int64_t row = 0; row < task.num_queries * group; ++row) {
        const int64_t token = task.first_token + row / group;
        auto* out = a.out + (token * a.num_heads + task.kv_head * group + row % group) * dim;
        const float* values = sums.values + row * a.layout.padded_dim();
        const float inverse = 1.0f / sum(sums.weights[row]);
        for_each_vec(dim, [&](int64_t i, auto, auto store) {
            store(out + i, load(values + i) * inverse);
        });
    }
}

template <typename U>
void attend(const Attention<U>& a, const Task& task, Sums& sums) {
    Scratch<U> s;
    Sums next;
    load_queries(a, task, s);
    attend_segment(a, task, task.first_segment, s, sums);
    for (int64_t segment = task.first_segment + 1; segment < task.last_segment; ++segment) {
        attend_segment(a, task, segment, s, next);
        merge<U>(sums, next, task.num_queries * a.heads_per_kv_head(), a.layout.padded_dim());
    }
}

struct Plan {
    // Tasks of one request and KV head whose segments threads share are neighbours.
    std::vector<Task> tasks;
    int64_t work = 0;
};

// Cuts the step into tasks of at most MAX_ROWS rows; few rows that see much become several tasks.
template <typename U>
Plan plan_tasks(const Attention<U>& a, const int32_t* seq_lens, const int32_t* query_start_loc,
                int64_t num_requests) {
    Plan plan;
    const int64_t group = a.heads_per_kv_head(), most_queries = MAX_ROWS / group;
    for (int64_t request = 0; request < num_requests; ++request) {
        const int64_t begin = query_start_loc[request], end = query_start_loc[request + 1];
        for (int64_t token = begin; token < end; token += most_queries) {
            const int64_t num_queries = std::min(most_queries, end - token);
            const int64_t position = seq_lens[request] - (end - token);
            const int64_t lanes = a.lanes_to(position + num_queries - 1);
            const int64_t num_segments = (lanes + SEGMENT - 1) / SEGMENT;
            const int64_t step = end - begin == 1 ? 1 : num_segments;
            plan.work += 2 * num_queries * a.num_heads * a.layout.head_dim * lanes;
            for (int64_t kv_head = 0; kv_head < a.layout.num_kv_heads; ++kv_head) {
                for (int64_t first = 0; first < num_segments; first += step) {
                    plan.tasks.push_back(
                        {request, kv_head, token, num_queries, position, first, first + step});
                }
            }
        }
    }
    return plan;
}

template <typename U>
void run(const Attention<U>& a, const Plan& plan) {
    const auto& tasks = plan.tasks;
    const int64_t rows = a.heads_per_kv_head(), dim = a.layout.padded_dim();
    // Of tasks that are a part of a request; the task of its first part adds them up.
    std::vector<Sums*> parts(tasks.size());
    auto is_first = [&](int64_t i) { return tasks[i].first_segment == 0; };
    auto is_whole = [&](int64_t i) {
        return is_first(i) && (i + 1 == int64_t(tasks.size()) || is_first(i + 1));
    };
    parallel_tasks(tasks.size(), plan.work, [&](int64_t i) {
        if (is_whole(i)) {
            Sums sums;
            attend(a, tasks[i], sums);
            store_rows(a, tasks[i], sums);
        } else {
            parts[i] = new Sums;
            attend(a, tasks[i], *parts[i]);
        }
    });
    for (int64_t i = 0; i < int64_t(tasks.size()); ++i) {
        if (is_whole(i)) continue;
        const int64_t first = i;
        for (++i; i < int64_t(tasks.size()) && !is_first(i); ++i) {
            merge<U>(*parts[first], *parts[i], rows, dim);
            delete parts[i];
        }
        store_rows(a, tasks[first], *parts[first]);
        delete parts[first];
        --i;
    }
}

}  // namespace

extern "C" void paged_attention(const void* q, const void* k_cache, const void* v_cache,
                                const int32_t* block_tables, const int32_t* seq_lens,
                                const int32_t* query_start_loc, void* out, int64_t num_requests,
                                int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                                int64_t block_size, int64_t q_stride, int64_t table_stride,
                                float scale, int32_t dtype) {
    with_unit(dtype, [&](auto unit) {
        using U = decltype(unit);
        using Unit = typename U::Unit;
        using Element = typename U::Element;
        const Attention<U> attention = {static_cast<const Element*>(q),
                                        static_cast<const Unit*>(k_cache),
                                        static_cast<const Unit*>(v_cache),
                                        block_tables,
                                        static_cast<Element*>(out),
                                        {num_kv_heads, head_dim, block_size},
                                        num_heads,
                                        q_stride,
                                        table_stride,
                                        scale};
        run(attention, plan_tasks(attention, seq_lens, query_start_loc, num_requests));
    });
}
