// All layers of a decoder, one operation after the other, without a return to Python in between.

#include <algorithm>
#include <iterator>

#include "ops.h"
#include "profile.h"

namespace {

struct Layer {
    const void *input_norm, *post_attention_norm;
    PackedWeight qkv_proj, o_proj, gate_up_proj, down_proj;
};

struct Model {
    int64_t num_layers, hidden_size, num_heads, num_kv_heads, head_dim, block_size;
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

void attention(const Model& m, const Layer& layer, void* pages, const Step& step,
               const Activations& a) {
    const int64_t q_size = m.num_heads * m.head_dim, kv_size = m.num_kv_heads * m.head_dim;
    const int64_t stride = q_size + 2 * kv_size;
    linear(&layer.qkv_proj, a.hidden, a.wide, step.num_tokens);
    rope_and_store_kv(a.wide, at(a.wide, q_size, m.dtype), at(a.wide, q_size + kv_size, m.dtype),
                      m.cos_sin, step.positions, pages, step.slot_mapping,
                      step.num_tokens, m.num_heads, m.num_kv_heads, m.head_dim, m.block_size,
                      stride, stride, stride, m.dtype);
    paged_attention(a.wide, pages, step.block_tables, step.seq_lens,
                    step.query_start_loc, a.attended, step.num_requests, m.num_heads, m.num_kv_heads,
                    m.head_dim, m.block_size, stride, step.table_stride, m.scale, m.dtype);
    add_linear(&layer.o_proj, a.attended, a.residual, step.num_tokens);
}

void mlp(const Layer& layer, const Step& step, const Activations& a) {
    linear(&layer.gate_up_proj, a.hidden, a.wide, step.num_tokens);
    add_linear(&layer.down_proj, a.wide, a.residual, step.num_tokens);
}

}  // namespace

extern "C" void decoder_layers(const Model* model, const Layer* layers, void* const* pages,
                               const Step* step, const Activations* activations) {
    const Model& m = *model;
    const Activations& a = *activations;
    auto norm = [&](const void* weight) {
        rms_norm(a.residual, weight, a.hidden, step->num_tokens, m.hidden_size, m.eps, m.dtype);
    };
    profile::is_in_layers = true;
    for (int64_t i = 0; i < m.num_layers; ++i) {
        const Layer& layer = layers[i];
        norm(layer.input_norm);
        attention(m, layer, pages[i], *step, a);
        norm(layer.post_attention_norm);
        mlp(layer, *step, a);
    }
    profile::is_in_layers = false;
}

extern "C" void read_profile(int64_t* nanoseconds) {
    std::copy(std::begin(profile::nanoseconds), std::end(profile::nanoseconds), nanoseconds);
}
