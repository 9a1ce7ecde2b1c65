// All layers of a decoder, one operation after the other, without a return to Python in between.

#include <algorithm>
#include <iterator>
#include <vector>

#include "linear.h"
#include "ops.h"
#include "profile.h"

namespace {

struct Layer {
    const void *input_norm, *post_attention_norm;
    PackedWeight qkv_proj, o_proj, gate_up_proj, down_proj;
};

struct Model {
    int64_t num_layers, hidden_size, num_heads, num_kv_heads, head_dim, block_size, block_bytes;
    const float* cos_sin;
    float eps, scale;
    int32_t dtype;
};

struct Step {
    const int64_t *positions, *slot_mapping;
    const int32_t *block_tables, *seq_lens, *query_start_loc;
    int64_t num_tokens, num_requests, table_stride;
};

// Rows of activations; `wide` holds queries, keys and values, then what goes between the two products
// of the feed-forward layer.
struct Activations {
    void *residual, *hidden, *attended, *wide;
};

char* at(void* base, int64_t index, int32_t dtype) {
    return static_cast<char*>(base) + index * (dtype == 0 ? 4 : 2);
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
    product(layer.qkv_proj, a.hidden, a.wide, step.num_tokens, false, ahead);
    rope_and_store_kv(a.wide, at(a.wide, q_size, m.dtype), at(a.wide, q_size + kv_size, m.dtype),
                      m.cos_sin, step.positions, pages, step.slot_mapping,
                      step.num_tokens, m.num_heads, m.num_kv_heads, m.head_dim, m.block_size,
                      stride, stride, stride, m.dtype);
    paged_attention(a.wide, pages, step.block_tables, step.seq_lens,
                    step.query_start_loc, a.attended, step.num_requests, m.num_heads, m.num_kv_heads,
                    m.head_dim, m.block_size, stride, step.table_stride, m.scale, m.dtype);
    ahead.follow(next_pages);
    product(layer.o_proj, a.attended, a.residual, step.num_tokens, true, ahead);
}

void mlp(const Layer& layer, const Step& step, const Activations& a, FetchAhead& ahead) {
    product(layer.gate_up_proj, a.hidden, a.wide, step.num_tokens, false, ahead);
    product(layer.down_proj, a.wide, a.residual, step.num_tokens, true, ahead);
}

}  // namespace

extern "C" void decoder_layers(const Model* model, const Layer* layers, void* const* pages,
                               const Step* step, const Activations* activations) {
    const Model& m = *model;
    const Activations& a = *activations;
    auto norm = [&](const void* weight) {
        rms_norm(a.residual, weight, a.hidden, step->num_tokens, m.hidden_size, m.eps, m.dtype);
    };
    FetchAhead ahead = keys_and_values(m, *step);
    ahead.follow(pages[0]);
    profile::is_in_layers = true;
    for (int64_t i = 0; i < m.num_layers; ++i) {
        const Layer& layer = layers[i];
        norm(layer.input_norm);
        const void* next_pages = i + 1 < m.num_layers ? pages[i + 1] : nullptr;
        attention(m, layer, pages[i], next_pages, *step, a, ahead);
        norm(layer.post_attention_norm);
        mlp(layer, *step, a, ahead);
    }
    profile::is_in_layers = false;
}

extern "C" void read_profile(int64_t* nanoseconds) {
    std::copy(std::begin(profile::nanoseconds), std::end(profile::nanoseconds), nanoseconds);
}
