// Activations as bytes: see quantize_rows.h for what they are.

#include "quantize_rows.h"

#include "parallel.h"
#include "vec.h"

namespace {

constexpr float LARGEST = 127.0f;
// Groups of smaller numbers count as zeros: the inverse of their scale might overflow.
constexpr float SMALLEST = 1e-30f;

template <int SIZE>
void quantize_group(const Vec (&x)[SIZE / VEC], QuantizedGroup<SIZE>& group) {
    // Without their signs, numbers are in the order of their bits, and what is not finite comes last.
    VecI magnitudes = {};
    for (const Vec& part : x) magnitudes = max(magnitudes, bit_cast<VecI>(part) & 0x7fffffff);
    const float range = bit_cast<float>(max(magnitudes));
    const bool is_zero = range < SMALLEST;
    const float inverse = is_zero ? 0.0f : LARGEST / range;
    // Adding it rounds to the nearest whole number, which the last bits then are.
    const Vec magic = splat(12582912.0f);  // 1.5 * 2^23
    VecU totals = {};
    for (int i = 0; i < SIZE / VEC; ++i) {
        const VecU rounded = bit_cast<VecU>(x[i] * inverse + magic);
        totals += rounded - bit_cast<VecU>(magic);
        store(group.values + i * VEC, rounded);
    }
    const uint32_t total = sum(totals);
    group.scale = is_zero ? 0.0f : range * (1 / LARGEST) + (range - range);
    group.sum = group.scale * static_cast<int32_t>(total);
    group.offset = static_cast<int32_t>(total * -128u);
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
