// Attention over the paged KV cache, with an online softmax over tiles of keys.
//
// Tiles start at fixed absolute positions and are taken in order, and a masked key adds an exact
// zero: so the bits of a result do not depend on which queries and requests are worked on together.

#include <cmath>
#include <limits>
#include <vector>

#include "parallel.h"
#include "tile.h"
#include "vec.h"

namespace {

constexpr int64_t KEY_TILE = 64;
constexpr int64_t MAX_ROWS = 64;
constexpr int64_t MAX_HEAD_DIM = 256;

template <typename T>
struct Attention {
    const T *q, *k_cache, *v_cache;
    const int32_t* block_tables;
    T* out;
    int64_t num_heads, num_kv_heads, head_dim, block_size, q_stride, table_stride;
    float scale;

    int64_t heads_per_kv_head() const { return num_heads / num_kv_heads; }
    // The width of a head in scratch memory, where whole vectors are read.
    int64_t padded_dim() const { return (head_dim + VEC - 1) / VEC * VEC; }
};

// Neighbouring queries of one request, and all heads that share a KV head. They are worked on
// together, as rows: row = query * heads_per_kv_head + head.
struct Task {
    int64_t request, kv_head, first_token, num_queries, first_position;

    int64_t last_position() const { return first_position + num_queries - 1; }
};

// Everything in float32; rows and values are padded_dim() apart.
struct Scratch {
    alignas(64) float queries[MAX_ROWS * MAX_HEAD_DIM];  // times scale
    alignas(64) float sums[MAX_ROWS * MAX_HEAD_DIM];     // of weight * value, so far
    alignas(64) float keys[MAX_HEAD_DIM * KEY_TILE];     // transposed: [dim][key]
    alignas(64) float values[KEY_TILE * MAX_HEAD_DIM];
    alignas(64) float scores[MAX_ROWS * KEY_TILE];       // then the weights
    Vec weight_sums[MAX_ROWS];
    float largest[MAX_ROWS];  // score so far
};

template <typename T>
void load_queries(const Attention<T>& a, const Task& task, Scratch& s) {
    const int64_t group = a.heads_per_kv_head(), dim = a.padded_dim();
    for (int64_t row = 0; row < task.num_queries * group; ++row) {
        const T* q = a.q + (task.first_token + row / group) * a.q_stride +
                     (task.kv_head * group + row % group) * a.head_dim;
        for_each_vec(a.head_dim, [&](int64_t i, auto load, auto) {
            store(s.queries + row * dim + i, load(q + i) * a.scale);
        });
        std::fill_n(s.sums + row * dim, dim, 0.0f);
        s.weight_sums[row] = Vec{};
        s.largest[row] = -std::numeric_limits<float>::infinity();
    }
}

// Where a tile's keys and values lie in the cache.
template <typename T>
struct Tile {
    int64_t count;
    const T *keys[KEY_TILE], *values[KEY_TILE];
};

// Finds the tile of the task that starts at position `start`, and starts to fetch it.
template <typename T>
Tile<T> find_tile(const Attention<T>& a, const Task& task, int64_t start) {
    static constexpr T ZEROS[MAX_HEAD_DIM] = {};
    Tile<T> tile;
    tile.count = std::clamp<int64_t>(task.last_position() + 1 - start, 0, KEY_TILE);
    const int32_t* block = a.block_tables + task.request * a.table_stride + start / a.block_size;
    int64_t slot_in_block = start % a.block_size;
    for (int64_t i = 0; i < tile.count; ++i) {
        const int64_t slot = *block * a.block_size + slot_in_block;
        const int64_t offset = (slot * a.num_kv_heads + task.kv_head) * a.head_dim;
        tile.keys[i] = a.k_cache + offset;
        tile.values[i] = a.v_cache + offset;
        for (int64_t d = 0; d < a.head_dim; d += 64 / sizeof(T)) {
            __builtin_prefetch(tile.keys[i] + d);
            __builtin_prefetch(tile.values[i] + d);
        }
        if (++slot_in_block == a.block_size) {
            slot_in_block = 0;
            ++block;
        }
    }
    // Slots after these are not read, for nobody may have written them yet.
    std::fill(tile.keys + tile.count, tile.keys + KEY_TILE, ZEROS);
    return tile;
}

// Copies a tile to scratch memory.
template <typename T>
void load_tile(const Attention<T>& a, const Tile<T>& tile, Scratch& s) {
    for_each_vec(a.head_dim, [&](int64_t d, auto load, auto) {
        for (int64_t first = 0; first < tile.count; first += VEC) {
            Vec square[VEC];
#pragma GCC unroll 16
            for (int64_t i = 0; i < VEC; ++i) square[i] = load(tile.keys[first + i] + d);
            transpose(square);
#pragma GCC unroll 16
            for (int64_t i = 0; i < VEC; ++i) store(s.keys + (d + i) * KEY_TILE + first, square[i]);
        }
        for (int64_t i = 0; i < tile.count; ++i) {
            store(s.values + i * a.padded_dim() + d, load(tile.values[i] + d));
        }
    });
}

// c[rows][width] += a[rows][depth] * b[depth][width], width in whole vectors.
void multiply(int64_t rows, int64_t width, int64_t depth, Matrix<const float> a,
              Matrix<const float> b, Matrix<float> c) {
    int64_t i = 0;
    for (; i + TILE_VECS * VEC <= width; i += TILE_VECS * VEC) {
        multiply_rows<Float32Unit, TILE_VECS>(rows, a, {b.data + i, b.stride}, depth,
                                              {c.data + i, c.stride});
    }
    for (; i < width; i += VEC) {
        multiply_rows<Float32Unit, 1>(rows, a, {b.data + i, b.stride}, depth,
                                      {c.data + i, c.stride});
    }
}

// Turns a row's scores into weights relative to its largest score so far, and rescales its sums.
void soften_row(float* scores, int64_t width, int64_t num_visible, float* sums, int64_t dim,
                Vec& weight_sum, float& largest) {
    for (int64_t i = std::max<int64_t>(num_visible, 0); i < width; ++i) {
        scores[i] = -std::numeric_limits<float>::infinity();
    }
    Vec maxima = splat(largest);
    for (int64_t i = 0; i < width; i += VEC) maxima = max(load(scores + i), maxima);
    const float new_largest = max(maxima);
    const Vec rescale = exp(splat(largest - new_largest));
    largest = new_largest;
    weight_sum *= rescale;
    for (int64_t i = 0; i < width; i += VEC) {
        const Vec weights = exp(load(scores + i) - new_largest);
        store(scores + i, weights);
        weight_sum += weights;
    }
    for (int64_t i = 0; i < dim; i += VEC) store(sums + i, load(sums + i) * rescale);
}

template <typename T>
void store_rows(const Attention<T>& a, const Task& task, const Scratch& s) {
    const int64_t group = a.heads_per_kv_head();
    for (int64_t row = 0; row < task.num_queries * group; ++row) {
        const int64_t token = task.first_token + row / group;
        T* out = a.out + (token * a.num_heads + task.kv_head * group + row % group) * a.head_dim;
        const float* sums = s.sums + row * a.padded_dim();
        const float total = sum(s.weight_sums[row]);
        for_each_vec(a.head_dim, [&](int64_t i, auto, auto store) {
            store(out + i, load(sums + i) / total);
        });
    }
}

template <typename T>
void attend(const Attention<T>& a, const Task& task) {
    Scratch s;
    const int64_t group = a.heads_per_kv_head(), rows = task.num_queries * group;
    const int64_t dim = a.padded_dim();
    load_queries(a, task, s);
    Tile<T> tile = find_tile(a, task, 0);
    for (int64_t start = 0; tile.count > 0; start += KEY_TILE) {
        const Tile<T> next = find_tile(a, task, start + KEY_TILE);
        const int64_t width = (tile.count + VEC - 1) / VEC * VEC;
        load_tile(a, tile, s);
        std::fill_n(s.scores, rows * KEY_TILE, 0.0f);
        multiply(rows, width, a.head_dim, {s.queries, dim}, {s.keys, KEY_TILE},
                 {s.scores, KEY_TILE});
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t num_visible = task.first_position + row / group + 1 - start;
            soften_row(s.scores + row * KEY_TILE, width, num_visible, s.sums + row * dim, dim,
                       s.weight_sums[row], s.largest[row]);
        }
        multiply(rows, dim, tile.count, {s.scores, KEY_TILE}, {s.values, dim}, {s.sums, dim});
        tile = next;
    }
    store_rows(a, task, s);
}

// Cuts the step into tasks of at most MAX_ROWS rows.
std::vector<Task> plan_tasks(const int32_t* seq_lens, const int32_t* query_start_loc,
                             int64_t num_requests, int64_t num_kv_heads, int64_t group) {
    std::vector<Task> tasks;
    const int64_t most_queries = MAX_ROWS / group;
    for (int64_t request = 0; request < num_requests; ++request) {
        const int64_t begin = query_start_loc[request], end = query_start_loc[request + 1];
        for (int64_t token = begin; token < end; token += most_queries) {
            const int64_t num_queries = std::min(most_queries, end - token);
            const int64_t position = seq_lens[request] - (end - token);
            for (int64_t kv_head = 0; kv_head < num_kv_heads; ++kv_head) {
                tasks.push_back({request, kv_head, token, num_queries, position});
            }
        }
    }
    return tasks;
}

}  // namespace

extern "C" void paged_attention(const void* q, const void* k_cache, const void* v_cache,
                                const int32_t* block_tables, const int32_t* seq_lens,
                                const int32_t* query_start_loc, void* out, int64_t num_requests,
                                int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                                int64_t block_size, int64_t q_stride, int64_t table_stride,
                                float scale, int32_t dtype) {
    const int64_t group = num_heads / num_kv_heads;
    const auto tasks = plan_tasks(seq_lens, query_start_loc, num_requests, num_kv_heads, group);
    int64_t work = 0;
    for (const Task& task : tasks) {
        work += 2 * task.num_queries * group * head_dim * (task.last_position() + 1);
    }
    with_dtype(dtype, [&](auto element) {
        using T = decltype(element);
        const Attention<T> attention = {
            static_cast<const T*>(q), static_cast<const T*>(k_cache),
            static_cast<const T*>(v_cache), block_tables, static_cast<T*>(out), num_heads,
            num_kv_heads, head_dim, block_size, q_stride, table_stride, scale};
        parallel_tasks(tasks.size(), work, [&](int64_t i) { attend(attention, tasks[i]); });
    });
}
