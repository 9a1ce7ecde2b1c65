// Activations as bytes: each group of a row has a scale of its own.
//
// One scale for a whole row would be set by its few outliers: it would cost SmolLM2-135M 3.3 % of
// perplexity, where a scale for every 64 numbers costs 0.5 % (both simulated).
//
// Source: ggml's block_q8_1 (https://github.com/ggml-org/ggml), with what follows from the sum stored
// as the products want it.
#pragma once

#include <cstdint>

// SIZE neighbours of a row: x[i] is about scale * values[i]. Where a row ends, zeros fill its group.
template <int SIZE>
struct QuantizedGroup {
    float scale;
    float sum;       // scale * (the sum of values)
    int32_t offset;  // -128 * (the sum of values)
    int8_t values[SIZE];

    // Four neighbours as one number.
    const uint32_t* units() const { return reinterpret_cast<const uint32_t*>(values); }
};

inline int64_t groups_of(int64_t size, int64_t group_size) {
    return (size + group_size - 1) / group_size;
}

// Quantizes [num_rows, size] to [num_rows, groups_of(size, SIZE)], on all threads. A group with a
// number that is not finite has the scale NaN. dtype has library.py's codes.
template <int SIZE>
void quantize_rows(const void* x, int32_t dtype, int64_t num_rows, int64_t size,
                   QuantizedGroup<SIZE>* groups);
