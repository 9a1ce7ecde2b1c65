// The operations that others are made of, as the library exports them. Element types have the codes
// of library.py's DTYPES; what the arguments are stands in the Python file of each operation.
#pragma once

#include <cstdint>

// How a packed weight lies in memory: in panels of its own elements, see linear.cpp, or quantized, see
// quantized_weight.h.
enum class Layout : int32_t { PANELS = 0, INT8 = 1, Q8 = 2, Q4 = 3 };

// A weight as kernels/linear.py packs it; `dtype` is that of the activations. A gated one answers
// silu(gate) * up.
struct PackedWeight {
    const void* data;
    int64_t out_features, in_features;
    int32_t dtype, out_dtype;
    Layout layout;
    int32_t is_gated;
};

extern "C" {

void linear(const PackedWeight* weight, const void* x, void* out, int64_t num_rows);

void add_linear(const PackedWeight* weight, const void* x, void* residual, int64_t num_rows);

void rms_norm(const void* x, const void* weight, void* out, int64_t num_rows, int64_t dim, float eps,
              int32_t dtype);

void rope_and_store_kv(void* q, const void* k, const void* v, const float* cos_sin,
                       const int64_t* positions, void* pages, const int64_t* slot_mapping,
                       int64_t num_tokens, int64_t num_heads,
                       int64_t num_kv_heads, int64_t head_dim, int64_t block_size,
                       int64_t q_stride, int64_t k_stride, int64_t v_stride, int32_t dtype,
                       int32_t cache_dtype);

void paged_attention(const void* q, const void* pages, const int32_t* block_tables,
                     const int32_t* seq_lens,
                     const int32_t* query_start_loc, void* out, int64_t num_requests,
                     int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t block_size,
                     int64_t q_stride, int64_t table_stride, float scale, int32_t dtype,
                     int32_t cache_dtype);
}
