// A decoder from token ids to what its head takes, without a return to Python in between.

#include <algorithm>
#include <cstring>
#include <iterator>
#include <vector>

#include "linear.h"
#include "ops.h"
#include "parallel.h"
#include "profile.h"

namespace {

struct Layer {
    const void *input_norm, *post_attention_norm;
    PackedWeight qkv_proj, o_proj, gate_up_proj, down_proj;
};

struct Model {
    int64_t num_layers, hidden_size, num_heads, num_kv_heads, head_dim, block_size, block_bytes;
    const float* cos_sin;
    const void *embed_tokens, *norm;
    float eps, scale;
    int32_t dtype, cache_dtype;
};

// `wanted` are the tokens that go on to the head; null: the first ones, which are all or none.
struct Step {
    const int32_t* input_ids;
    const int64_t *positions, *slot_mapping, *wanted;
    const int32_t *block_tables, *seq_lens, *query_start_loc;
    int64_t num_tokens, num_requests, table_stride, num_wanted;
};

// Rows of activations; `wide` holds queries, keys and values, then what goes between the two products
// of the feed-forward layer. In the end `hidden` is the answer.
struct Activations {
    void *residual, *hidden, *attended, *wide;
};

char* at(void* base, int64_t index, int32_t dtype) {
    return static_cast<char*>(base) + index * (dtype == 0 ? 4 : 2);
}

void embed(const Model& m, const Step& step, const Activations& a) {
    const int64_t row_bytes = m.hidden_size * (m.dtype == 0 ? 4 : 2);
    parallel_rows(step.num_tokens, m.hidden_size, [&](int64_t token) {
        std::memcpy(static_cast<char*>(a.residual) + token * row_bytes,
                    static_cast<const char*>(m.embed_tokens) + step.input_ids[token] * row_bytes,
                    row_bytes);
    });
}

// Takes the tokens that are wanted through the norm behind the layers.
void last_norm(const Model& m, const Step& step, const Activations& a) {
    auto norm = [&](int64_t token, int64_t place, int64_t num_rows) {
        rms_norm(at(a.residual, token * m.hidden_size, m.dtype), m.norm,
                 at(a.hidden, place * m.hidden_size, m.dtype), num_rows, m.hidden_size, m.eps, m.dtype);
    };
    if (step.wanted == nullptr) return norm(0, 0, step.num_wanted);
    for (int64_t i = 0; i < step.num_wanted; ++i) norm(step.wanted[i], i, 1);
}

// What attention of the step reads on each layer.
FetchAhead keys_and_values(const Model& m, const Step& step) {
    std::vector<int32_t> blocks;
    for (int64_t request = 0; request < step.num_requests; ++request) {
        const int32_t* table = step.block_tables + request * step.table_stride;
        const int64_t num_blocks = (step.seq_lens[request] + m.block_size - 1) / m.block_size;
        blocks.insert(blocks.end(), table, table + num_blocks);
    }
    return FetchAhead(std::move(blocks), m.block_bytes);
}

// Keys and values of the next layer, at `next_pages`, are fetched along with the products from here on.
void attention(const Model& m, const Layer& layer, void* pages, const void* next_pages,
               const Step& step, const Activations& a, FetchAhead& ahead) {
    const int64_t q_size = m.num_heads * m.head_dim, kv_size = m.num_kv_heads * m.head_dim;
    const int64_t stride = q_size + 2 * kv_size;
    fetch_while_waiting(layer.o_proj);
    product(layer.qkv_proj, a.hidden, a.wide, step.num_tokens, false, ahead);
    rope_and_store_kv(a.wide, at(a.wide, q_size, m.dtype), at(a.wide, q_size + kv_size, m.dtype),
                      m.cos_sin, step.positions, pages, step.slot_mapping,
                      step.num_tokens, m.num_heads, m.num_kv_heads, m.head_dim, m.block_size,
                      stride, stride, stride, m.dtype, m.cache_dtype);
    paged_attention(a.wide, pages, step.block_tables, step.seq_lens,
                    step.query_start_loc, a.attended, step.num_requests, m.num_heads, m.num_kv_heads,
                    m.head_dim, m.block_size, stride, step.table_stride, m.scale, m.dtype,
                    m.cache_dtype);
    ahead.follow(next_pages);
    fetch_while_waiting(layer.gate_up_proj);
    product(layer.o_proj, a.attended, a.residual, step.num_tokens, true, ahead);
}

// `next` is the layer that comes after this one, in this step or in the one to come.
void mlp(const Layer& layer, const Layer& next, const Step& step, const Activations& a,
         FetchAhead& ahead) {
    fetch_while_waiting(layer.down_proj);
    product(layer.gate_up_proj, a.hidden, a.wide, step.num_tokens, false, ahead);
    fetch_while_waiting(next.qkv_proj);
    product(layer.down_proj, a.wide, a.residual, step.num_tokens, true, ahead);
}

}  // namespace

extern "C" void hidden_states(const Model* model, const Layer* layers, void* const* pages,
                              const Step* step, const Activations* activations) {
    const Model& m = *model;
    const Activations& a = *activations;
    auto norm = [&](const void* weight) {
        rms_norm(a.residual, weight, a.hidden, step->num_tokens, m.hidden_size, m.eps, m.dtype);
    };
    FetchAhead ahead = keys_and_values(m, *step);
    ahead.follow(pages[0]);
    embed(m, *step, a);
    profile::is_in_layers = true;
    for (int64_t i = 0; i < m.num_layers; ++i) {
        const Layer& layer = layers[i];
        norm(layer.input_norm);
        const void* next_pages = i + 1 < m.num_layers ? pages[i + 1] : nullptr;
        attention(m, layer, pages[i], next_pages, *step, a, ahead);
        norm(layer.post_attention_norm);
        mlp(layer, layers[(i + 1) % m.num_layers], *step, a, ahead);
    }
    profile::is_in_layers = false;
    last_norm(m, *step, a);
}

extern "C" void read_profile(int64_t* nanoseconds) {
    std::copy(std::begin(profile::nanoseconds), std::end(profile::nanoseconds), nanoseconds);
}
