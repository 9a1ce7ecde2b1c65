// What the machine can do at most: multiply-adds that depend on nothing, and reads that feed nothing.

#include <cstdint>

#include "parallel.h"
#include "tile.h"

namespace {

// Enough independent sums to hide the latency of each, few enough for the registers.
constexpr int NUM_SUMS = 3 * TILE_VECS;

template <typename U>
void multiply_add_in_registers(int64_t count, float* sink) {
    const int64_t num_threads = thread_pool::num_threads();
    parallel_for(num_threads, num_threads, [&](int64_t thread) {
        VecU operand = {};
        typename U::Sum sums[NUM_SUMS];
        // Were they equal, the compiler would work on one of them only. Unrolled, they are registers.
#pragma GCC unroll 16
        for (int s = 0; s < NUM_SUMS; ++s) sums[s] = typename U::Sum{} + typename U::Number(s);
        for (int64_t i = 0; i < count; ++i) {
            // Keeps the compiler from taking the work out of the loop.
            asm volatile("" : "+m"(operand));
#pragma GCC unroll 16
            for (int s = 0; s < NUM_SUMS; ++s) sums[s] = U::multiply_add(sums[s], operand, {});
        }
#pragma GCC unroll 16
        for (int s = 1; s < NUM_SUMS; ++s) sums[0] += sums[s];
        store(sink + thread * VEC, __builtin_convertvector(sums[0], Vec));
    });
}

}  // namespace

// The number of multiply-adds that one unit of `count` stands for, on one thread.
extern "C" int64_t float32_per_count() { return NUM_SUMS * VEC; }
extern "C" int64_t bfloat16_per_count() { return 2 * NUM_SUMS * VEC; }
extern "C" int64_t int8_per_count() { return 4 * NUM_SUMS * VEC; }

// All want a sink of 16 floats for each thread.
extern "C" void multiply_add_float32(int64_t count, float* sink) {
    multiply_add_in_registers<Float32Unit>(count, sink);
}
extern "C" void multiply_add_bfloat16(int64_t count, float* sink) {
    multiply_add_in_registers<BFloat16Unit>(count, sink);
}
extern "C" void multiply_add_int8(int64_t count, float* sink) {
    multiply_add_in_registers<ByteUnit<true>>(count, sink);
}

extern "C" void read_memory(const float* data, int64_t size, float* sink) {
    parallel_ranges(size / (4 * VEC), 1024, [&](int64_t begin, int64_t end) {
        Vec sums[4] = {};
        for (int64_t i = begin; i < end; ++i) {
            for (int v = 0; v < 4; ++v) sums[v] += load(data + (i * 4 + v) * VEC);
        }
        sink[begin == 0 ? 0 : 1] = sum(sums[0] + sums[1] + sums[2] + sums[3]);
    });
}
