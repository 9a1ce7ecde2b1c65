// Rotary embedding of queries and keys, and the write of keys and values into their cache slots.

#include "parallel.h"
#include "vec.h"

namespace {

// Rotates num_heads neighbouring heads from source to target, which may be the same.
template <typename T>
void rotate(const T* source, T* target, const float* cos_sin, int64_t num_heads, int64_t head_dim) {
    const int64_t half = head_dim / 2;
    for (int64_t head = 0; head < num_heads; ++head) {
        const T* from = source + head * head_dim;
        T* to = target + head * head_dim;
        for_each_vec(half, [&](int64_t i, auto load, auto store) {
            const Vec cos = load(cos_sin + i), sin = load(cos_sin + half + i);
            const Vec a = load(from + i), b = load(from + half + i);
            store(to + i, fma(a, cos, b * -sin));
            store(to + half + i, fma(b, cos, a * sin));
        });
    }
}

}  // namespace

extern "C" void rope_and_store_kv(void* q, const void* k, const void* v, const float* cos_sin,
                                  const int64_t* positions, void* k_cache, void* v_cache,
                                  const int64_t* slot_mapping, int64_t num_tokens,
                                  int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                                  int64_t q_stride, int64_t k_stride, int64_t v_stride,
                                  int32_t dtype) {
    const int64_t kv_size = num_kv_heads * head_dim;
    with_dtype(dtype, [&](auto element) {
        using T = decltype(element);
        parallel_rows(num_tokens, num_heads * head_dim + 2 * kv_size, [&](int64_t token) {
            const float* angles = cos_sin + positions[token] * head_dim;
            const int64_t slot = slot_mapping[token] * kv_size;
            T* queries = static_cast<T*>(q) + token * q_stride;
            rotate(queries, queries, angles, num_heads, head_dim);
            rotate(static_cast<const T*>(k) + token * k_stride, static_cast<T*>(k_cache) + slot,
                   angles, num_kv_heads, head_dim);
            memcpy(static_cast<T*>(v_cache) + slot, static_cast<const T*>(v) + token * v_stride,
                   kv_size * sizeof(T));
        });
    });
}
