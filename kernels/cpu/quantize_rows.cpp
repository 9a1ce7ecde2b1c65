// Activations as bytes: see quantize_rows.h for what they are.

#include "quantize_rows.h"

#include "bytes.h"
#include "parallel.h"

namespace {

template <int SIZE, typename T>
float range_of(const T* x) {
    VecI magnitudes = {};
    for (int i = 0; i < SIZE; i += VEC) {
        magnitudes = max(magnitudes, magnitude(load(x + i)));
    }
    return bit_cast<float>(max(magnitudes));
}

template <int SIZE, typename T>
void quantize_group(const T* x, float range, QuantizedGroup<SIZE>& group) {
    const ByteScale of_group(range, LARGEST_BYTE);
    VecU totals = {};
    for (int i = 0; i < SIZE; i += VEC) {
        const VecU bytes = rounded(load(x + i) * of_group.inverse);
        totals += bytes;
        store(group.values + i, bytes);
    }
    const uint32_t total = sum(totals);
    group.scale = of_group.scale;
    group.sum = group.scale * static_cast<int32_t>(total);
    group.offset = static_cast<int32_t>(total * -128u);
}

// Some groups' ranges first, and then their values: what waits for a range would else keep the next
// group from being begun.
template <int SIZE, typename T>
void quantize_row(const T* x, int64_t size, QuantizedGroup<SIZE>* groups) {
    constexpr int64_t GROUPS = 8;
    float ranges[GROUPS];
    const int64_t num_whole = size / SIZE;
    for (int64_t first = 0; first < num_whole; first += GROUPS) {
        const int64_t end = std::min(first + GROUPS, num_whole);
        for (int64_t g = first; g < end; ++g) ranges[g - first] = range_of<SIZE>(x + g * SIZE);
        for (int64_t g = first; g < end; ++g) {
            quantize_group(x + g * SIZE, ranges[g - first], groups[g]);
        }
    }
    if (size % SIZE == 0) return;
    T rest[SIZE] = {};
    memcpy(rest, x + num_whole * SIZE, size % SIZE * sizeof(T));
    quantize_group(rest, range_of<SIZE>(rest), groups[num_whole]);
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
