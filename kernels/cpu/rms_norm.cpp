// RMSNorm of each row; sums in float32.

#include <cmath>

#include "ops.h"
#include "parallel.h"
#include "profile.h"
#include "vec.h"

namespace {

template <typename T>
void normalize_row(const T* x, const T* weight, T* out, int64_t dim, float eps) {
    Vec squares = {};
    for_each_vec(dim, [&](int64_t i, auto load, auto) {
        const Vec v = load(x + i);
        squares = fma(v, v, squares);
    });
    const float inverse_rms = 1.0f / std::sqrt(sum(squares) / dim + eps);
    for_each_vec(dim, [&](int64_t i, auto load, auto store) {
        store(out + i, load(x + i) * inverse_rms * load(weight + i));
    });
}

}  // namespace

extern "C" void rms_norm(const void* x, const void* weight, void* out, int64_t num_rows,
                         int64_t dim, float eps, int32_t dtype) {
    const profile::Timer timer(profile::Part::NORM);
    with_dtype(dtype, [&](auto element) {
        using T = decltype(element);
        parallel_rows(num_rows, dim, [&](int64_t row) {
            normalize_row(static_cast<const T*>(x) + row * dim, static_cast<const T*>(weight),
                          static_cast<T*>(out) + row * dim, dim, eps);
        });
    });
}
