// The gated activation of a SwiGLU layer.

#include "parallel.h"
#include "silu.h"

extern "C" void silu_and_mul(const void* gate_up, void* out, int64_t num_rows, int64_t dim,
                             int32_t dtype) {
    with_dtype(dtype, [&](auto element) {
        using T = decltype(element);
        parallel_rows(num_rows, dim, [&](int64_t row) {
            const T* gate = static_cast<const T*>(gate_up) + row * 2 * dim;
            const T* up = gate + dim;
            T* target = static_cast<T*>(out) + row * dim;
            for_each_vec(dim, [&](int64_t i, auto load, auto store) {
                store(target + i, silu<T>(load(gate + i)) * load(up + i));
            });
        });
    });
}
