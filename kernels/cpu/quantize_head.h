// A head of a query, a key or a value as bytes.
#pragma once

#include "bytes.h"

// Quantizes `size` numbers, with what fills up the last vector of bytes as zeros; returns their scale.
template <typename T>
float quantize_head(const T* x, int64_t size, int8_t* bytes) {
    VecI magnitudes = {};
    for_each_vec(size, [&](int64_t i, auto load, auto) {
        magnitudes = max(magnitudes, magnitude(load(x + i)));
    });
    const ByteScale of_head(bit_cast<float>(max(magnitudes)), LARGEST_BYTE);
    for_each_vec(size, [&](int64_t i, auto load, auto) {
        store(bytes + i, rounded(load(x + i) * of_head.inverse));
    });
    return of_head.scale;
}
