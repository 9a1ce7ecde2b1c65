#include "quantize_rows.h"

#include "parallel.h"
#include "vec.h"

namespace {

constexpr float LARGEST = 127.0f;
// Groups of smaller numbers count as zeros: the inverse of their scale might overflow.
constexpr float SMALLEST = 1e-30f;

inline Vec abs(Vec x) { return bit_cast<Vec>(bit_cast<VecU>(x) & 0x7fffffff); }

// Rounds to the nearest whole number, to the even one if two are as near.
inline VecI round(Vec x) {
    const Vec magic = splat(12582912.0f);  // 1.5 * 2^23
    return bit_cast<VecI>(x + magic) - bit_cast<VecI>(magic);
}

template <int SIZE>
void quantize_group(const Vec (&x)[SIZE / VEC], QuantizedGroup<SIZE>& group) {
    Vec largest = {}, not_finite = {};
    for (const Vec& part : x) {
        largest = max(abs(part), largest);
        not_finite += part * 0.0f;
    }
    const float range = max(largest);
    const float inverse = range < SMALLEST ? 0.0f : LARGEST / range;
    VecI total = {};
    for (int i = 0; i < SIZE / VEC; ++i) {
        const VecI rounded = round(x[i] * inverse);
        total += rounded;
        const auto bytes = __builtin_convertvector(rounded, VecByte);
        memcpy(group.values + i * VEC, &bytes, sizeof bytes);
    }
    int32_t values_sum = 0;
    for (int lane = 0; lane < VEC; ++lane) values_sum += total[lane];
    group.scale = (range < SMALLEST ? 0.0f : range / LARGEST) + sum(not_finite);
    group.sum = group.scale * values_sum;
    group.offset = -128 * values_sum;
}

template <int SIZE, typename T>
void quantize_row(const T* x, int64_t size, QuantizedGroup<SIZE>* groups) {
    Vec parts[SIZE / VEC];
    for (; size >= SIZE; size -= SIZE, x += SIZE) {
        for (int i = 0; i < SIZE / VEC; ++i) parts[i] = load(x + i * VEC);
        quantize_group(parts, *groups++);
    }
    if (size == 0) return;
    T rest[SIZE] = {};
    memcpy(rest, x, size * sizeof(T));
    for (int i = 0; i < SIZE / VEC; ++i) parts[i] = load(rest + i * VEC);
    quantize_group(parts, *groups);
}

}  // namespace

template <int SIZE>
void quantize_rows(const void* x, int32_t dtype, int64_t num_rows, int64_t size,
                   QuantizedGroup<SIZE>* groups) {
    const int64_t groups_per_row = groups_of(size, SIZE);
    with_dtype(dtype, [&](auto element) {
        const auto* rows = static_cast<const decltype(element)*>(x);
        parallel_rows(num_rows, size, [&](int64_t row) {
            quantize_row(rows + row * size, size, groups + row * groups_per_row);
        });
    });
}

template void quantize_rows<32>(const void*, int32_t, int64_t, int64_t, QuantizedGroup<32>*);
template void quantize_rows<64>(const void*, int32_t, int64_t, int64_t, QuantizedGroup<64>*);
